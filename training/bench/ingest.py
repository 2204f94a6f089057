"""`bench ingest`: from chat rows to tokens with a loss mask, ours beside `datasets`, in turn, each in a fresh process.

Everybody gets the same file, template and tokenizer, and must come to the same number of tokens and of trained ones.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from core.errors import RealmError
from core.formats import form
from core.paths import BUNDLED_TOKENIZER
from core.quest_file import to_row
from core.rendering import Renderer
from training.bench.chat_rows import rows
from training.bench.launch import peer_python, surroundings
from training.bench.machine import describe_machine, installed, versions
from training.terminal import bytes_text, table

WAYS = {"ours": "ours", "map": "datasets_map:", "map_batched": "datasets_map:batched"}
TITLES = {"ours": "The realm", "map": "datasets.map as it comes", "map_batched": "datasets.map, batched"}
ROWS, QUICK_ROWS = 60_000, 10_000
ROUNDS, QUICK_ROUNDS = 3, 2
LONGEST, SEED = 1006, 7
RUN_SECONDS = 600


def run_ingest(quick: bool, threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints. `ratio`: how many times as fast as `datasets.map` ours was."""
    python = peer_python()
    ways = WAYS if installed(python, {"datasets"}) else {"ours": WAYS["ours"]}
    if len(ways) == 1:
        say("datasets: not installed; `bash scripts/bootstrap_bench.sh` brings the peers")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as folder:
        file = Path(folder) / "rows.jsonl"
        size = _write_rows(file, QUICK_ROWS if quick else ROWS)
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            for name in ways:
                run = _run(python, ways[name], file, threads)
                runs[name].append({**run, "megabytes_per_second": size / 1e6 / run["seconds"]})
                say(f"round {number + 1}: {TITLES[name]}: {runs[name][-1]['megabytes_per_second']:.1f} MB/s")
    _assert_same(runs)
    return {
        "bench": "ingest",
        "ratio": _ratio(runs, "map"),
        "ratio_batched": _ratio(runs, "map_batched"),
        "bytes": size,
        "tokens": runs["ours"][0]["tokens"],
        "ways": {name: _summary(name, each) for name, each in runs.items()},
        "quick": quick,
        "machine": describe_machine(threads),
        "versions": versions(python),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def ingest_text(result: dict[str, Any]) -> str:
    head = ("", "MB/s", "min-max", "processor", "memory")
    lines = [
        (
            each["title"],
            f"{each['megabytes_per_second']['median']:.1f}",
            f"{each['megabytes_per_second']['min']:.1f}-{each['megabytes_per_second']['max']:.1f}",
            f"{each['processor_seconds']:.1f} s",
            bytes_text(each["peak_bytes"]),
        )
        for each in result["ways"].values()
    ]
    ratio = "" if result["ratio"] is None else f"\n\n{result['ratio']:.1f} x datasets.map as it comes"
    return f"{bytes_text(result['bytes'])}, {result['tokens']:,} tokens\n{table(head, lines)}{ratio}"


def _write_rows(file: Path, count: int) -> int:
    renderer = Renderer.load(BUNDLED_TOKENIZER, 1 << 20)

    def measure(row: dict) -> int:
        return len(renderer.render([to_row(form("messages"), row, {})])[0].sequences[0].input_ids)

    with open(file, "wb") as output:
        output.writelines(orjson.dumps(row) + b"\n" for row in rows(count, LONGEST, SEED, measure))
    return file.stat().st_size


def _run(python: str, way: str, file: Path, threads: int) -> dict[str, Any]:
    work = Path(tempfile.mkdtemp(dir=file.parent))
    command = [python, "-m", "training.bench.ingesters", way, str(file), str(work), str(work / "result.json")]
    done = subprocess.run(
        command, env=surroundings(threads), cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=RUN_SECONDS,
    )  # fmt: skip
    if done.returncode:
        last = done.stdout.decode(errors="replace").strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        raise RealmError(f"{way}: {last[0]}")
    result = orjson.loads((work / "result.json").read_bytes())
    shutil.rmtree(work)
    return result


def _assert_same(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Who makes other trained tokens does other work. The line's end after the last turn is not kept by ours."""
    trained = {name: each[0]["trained_tokens"] for name, each in runs.items()}
    if len(set(trained.values())) > 1:
        raise RealmError(f"not the same work, trained tokens: {trained}")


def _ratio(runs: dict[str, list[dict[str, Any]]], peer: str) -> float | None:
    """The median over rounds."""
    if peer not in runs:
        return None
    return median(theirs["seconds"] / ours["seconds"] for ours, theirs in zip(runs["ours"], runs[peer], strict=True))


def _summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = [run["megabytes_per_second"] for run in runs]
    return {
        "title": TITLES[name],
        "megabytes_per_second": {"median": median(speeds), "min": min(speeds), "max": max(speeds)},
        "processor_seconds": median(run["processor_seconds"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
    }
