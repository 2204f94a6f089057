"""How `bench faults` looks in docs/benchmarks.md: a row a kind of fault, each as it was last run. It knows the JSON only."""

from pathlib import Path
from typing import Any

from training.bench.page import keep
from training.terminal import bytes_text

METHOD = """\
Every fault strikes a throw-away realm; then the realm is read as it lies (`doctor --deep` reads the same), woken up, and
brought to its end, where the tensors must be those of a run that nobody disturbed. The stand-in is the product's own
trainer with a Qwen3 of 68 thousand parameters, forked from a process that has torch loaded. The pointers are followed
fifty times a second meanwhile. A row is measured again by `python -m training bench faults --kinds FAULT --seed SEED
--minutes M`."""
HEAD = ("promise", "fault", "tried", "held", "violations", "worst", "seed", "date, machine")


def write_faults(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write the rows of this run; those of other kinds stay as they are."""
    machine = result["machine"]
    where = f"{result['date']}, {machine['cpu']}, {machine['threads']} threads, {bytes_text(machine['memory_bytes'])}"
    rows = _kept(docs / "benchmarks.md")
    for each in result["promises"]:
        if each["skipped"]:
            continue
        facts = (each["promise"], each["name"], each["tried"], each["held"], len(each["findings"]), each["worst"])
        rows[each["name"]] = _row(*facts, result["seed"], where)
    ruler = _row("---", "---", "---:", "---:", "---:", "---", "---:", "---")
    lines = ["## Faults", "", METHOD, "", _row(*HEAD), ruler, *rows.values()]
    return keep(docs, "faults", "\n".join(lines), {})


def _row(*cells: Any) -> str:
    return "|".join(["", *map(str, cells), ""])


def _kept(page: Path) -> dict[str, str]:
    """The rows on the page by the name of their fault."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    part = text.partition("## Faults\n")[2].partition("<!-- end")[0]
    table = [line for line in part.splitlines() if line.startswith("|")][2:]
    return {line.split("|")[2]: line for line in table}
