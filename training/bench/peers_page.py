"""How `bench schools --peers` looks on a terminal and in docs/benchmarks.md. It knows the JSON and nothing of how it was made."""

from pathlib import Path
from typing import Any

from training.bench.page import keep, surroundings
from training.bench.peers import OURS
from training.terminal import bytes_text, styled, table

HEAD = ("", "tokens/s", "min-max", "ours", "steps", "references", "memory", "ours")


def peers_text(result: dict[str, Any]) -> str:
    parts = []
    for name, school in result["schools"].items():
        parts += [styled(_title(result, name, school), "bold"), table(HEAD, _rows(school)), ""]
    return "\n".join([*parts, LEGEND])


def write_peers(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write what the bench is about and a part for each school, others' parts staying; answers what was written."""
    about = "\n".join(["## The schools against TRL", "", METHOD, "", LEGEND])
    written = keep(docs, "peers", about, {})
    quick = " --quick" if result["quick"] else ""
    for name, school in result["schools"].items():
        command = f"python -m training bench schools --peers{quick} --schools {name}"
        lines = [f"### {_title(result, name, school)}", "", *surroundings(result, command), ""]
        lines += ["|".join(["", *cells, ""]) for cells in (HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *_rows(school))]
        keep(docs, f"peers {name}", "\n".join(lines), {})
    return written


def _title(result: dict[str, Any], name: str, school: dict[str, Any]) -> str:
    answers = (
        f", {school['answers']} answers each of {school['answer_tokens']} tokens at most" if school["answers"] else ""
    )
    work = f"{school['steps']} steps of {school['rows']} rows{answers}"
    return f"{name.capitalize()}, {result['size']} fp32: {work}, {school['rounds']} rounds"


def _rows(school: dict[str, Any]) -> list[tuple[str, ...]]:
    return [_row(name, each, school) for name, each in school["contestants"].items()]


def _row(name: str, each: dict[str, Any], school: dict[str, Any]) -> tuple[str, ...]:
    if each["state"] != "measured":
        return (each["title"], each["state"], *[""] * (len(HEAD) - 2))
    speed = each["tokens_per_second"]
    ratio, memory = (school[key].get(name) for key in ("ratio", "memory_ratio"))
    return (
        each["title"],
        f"{speed['median']:,.0f}",
        f"{speed['min']:,.0f}-{speed['max']:,.0f}",
        "" if ratio is None or name == OURS else f"{ratio:.2f} x",
        f"{each['step_seconds']['median']:.1f} s",
        f"{each['reference_seconds']['median']:.1f} s" if each["reference_seconds"]["max"] else "",
        bytes_text(each["peak_bytes"]["median"]),
        "" if memory is None or name == OURS else f"{memory:.2f} x",
    )


LEGEND = """\
tokens/s: real tokens by the seconds of all steps, with those that the Judge's references took beforehand; ours: how many
times as fast the school was, and how many times as much memory it held at its peak, each the median over rounds."""

METHOD = """\
Each school runs as the product does (gate, queue, battle, ledger, metrics) and beside it TRL's trainer of the same method,
from the same random Qwen3 weights, on the same rows, with as many of them a step, as many steps, the same AdamW, learning
rate, clipping and threads, in fp32 without activation checkpointing. Every run is a fresh process, and they take turns:
ours, theirs, theirs, ours. Imports, loading, checks and tokenising count for nobody; answers that the hero draws and
references count for both. The Champion's prompts, number of answers and their longest length are TRL's, both draw from the
same vocabulary at temperature 1, and rewards are the same Python function; nobody uses vLLM. The Whisper and GKD take the
rows as they are (off-policy) with a teacher of the hero's size. Surprise weighting has no like in TRL: the Oracle stands
beside plain SFT, which has less to compute. The Scribe is the forge, above; what the Mirror corrects the Scribe trains;
rewarded rows and labels have no trainer of TRL's that takes them as they are. Memory is the most that the process held
until its last step (VmHWM), libraries included."""
