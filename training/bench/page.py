"""docs/benchmarks.md and its pictures: each bench owns parts of the page, between two marks each, and replaces them whole."""

import re
from pathlib import Path
from typing import Any

from training.bench.chart import Bar, chart
from training.bench.table import HEAD, LEGEND, case_title, label, rows
from training.terminal import bytes_text

HEADING = "# Benchmarks\n\nWhat the benches measured, each with the command that measures it again.\n"
TITLE = "Real tokens per second"


def write_forge(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write what the bench is about and a part with a picture per case, others' cases staying; answers what was written."""
    about = "\n".join(["## The forge against its peers", "", METHOD, "", *LEGEND.splitlines()])
    written = keep(docs, "forge", about, {})
    for case in result["cases"]:
        name = f"forge_{case['size']}_{case['precision']}.svg"
        part = _part(result, case, name)
        written += keep(docs, f"forge {case['size']} {case['precision']}", part, {name: _picture(case)})[1:]
    return written


def keep(docs: Path, bench: str, part: str, pictures: dict[str, str]) -> list[Path]:
    """Replace the part of `bench` on the page and write its pictures, name and SVG; answers what was written."""
    written = []
    for name, picture in pictures.items():
        target = docs / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(picture, encoding="utf-8")
        written.append(target)
    page = docs / "benchmarks.md"
    before = page.read_text(encoding="utf-8") if page.exists() else HEADING
    page.write_text(_replaced(before, bench, part), encoding="utf-8")
    return [page, *written]


def surroundings(result: dict[str, Any], command_line: str) -> list[str]:
    """How, when and on what a result was measured."""
    machine, versions = result["machine"], result["versions"]
    hardware = [machine["cpu"], f"{machine['threads']} threads", bytes_text(machine["memory_bytes"]), *machine["gpus"]]
    return [
        f"`{command_line}`, {result['date']}.",
        "",
        f"Machine: {', '.join(hardware)}.",
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.",
    ]


def _replaced(page: str, bench: str, part: str) -> str:
    begin, end = f"<!-- bench {bench} -->", f"<!-- end of bench {bench} -->"
    block = f"{begin}\n{part}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{block}\n"


def _picture(case: dict[str, Any]) -> str:
    found = [(name, each) for name, each in case["contestants"].items() if each["state"] == "measured"]
    found.sort(key=lambda pair: -pair[1]["tokens_per_second"]["median"])
    times = {**case["ratio"], **case["ratio_others"]}
    bars = [
        Bar(
            label(each),
            each["tokens_per_second"]["median"],
            each["tokens_per_second"]["min"],
            each["tokens_per_second"]["max"],
            f"{times[name]:.2f} ×" if times.get(name) else "",
            name.startswith("ours"),
        )
        for name, each in found
    ]
    return chart(
        TITLE, case_title(case), bars, "whole loop, padding not counted; × how many times as fast the forge is"
    )


def _part(result: dict[str, Any], case: dict[str, Any], picture: str) -> str:
    lines = [f"### {case_title(case)}", "", *surroundings(result, command(result, case)), ""]
    lines += [f"![{TITLE}]({Path('images') / picture})", ""]
    lines += ["|".join(["", *cells, ""]) for cells in (HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *rows(case))]
    return "\n".join(lines)


def command(result: dict[str, Any], case: dict[str, Any]) -> str:
    """The command line that measures this case again."""
    quick = " --quick" if result["quick"] else ""
    peers = ",".join(name for name in case["contestants"] if name != "ours")
    return (
        f"python -m training bench forge{quick} --sizes {case['size']} --precision {case['precision']} "
        f"--steps {case['steps']} --peers {peers} --repeats {case['rounds']}"
    )


METHOD = """\
Everybody trains the same made-up chats (lognormal lengths, loss on the answers only) from the same random Qwen3
weights, the same rows and number of optimizer steps, with the same AdamW, learning rate, clipping and threads, each run
in a fresh process, taking turns. Precision is the same for all and nobody checkpoints activations, save for those who
run *as they come*. Padded peers take 8 rows a pass, TRL's packing takes a step's packs in one pass: what their batch
size is for. *One row a pass* and *one pack a pass* spend nothing on padding or on masks between packs and lose some by
small products; on a CPU that is the best of these peers. The forge runs as the product does: quest from the queue,
ledger, metrics and status page included. The held-out loss is scored by stock transformers in float32. Packing and
grouping by length put other rows into a step, so their losses differ a little; equal rows, equal loss."""
