"""How `bench faults` looks in docs/benchmarks.md: runs of one day add up there. It knows the JSON only."""

from pathlib import Path
from typing import Any

from training.bench.page import keep
from training.terminal import bytes_text

METHOD = """\
Every fault strikes a throw-away realm; then the realm is read as it lies (`doctor --deep` reads the same), woken up, and
brought to its end, where the tensors must be those of a run that nobody disturbed. The stand-in is the product's own
trainer with a Qwen3 of 68 thousand parameters, forked from a process that has torch loaded. The pointers are followed
fifty times a second meanwhile."""


def write_faults(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write the bench's part of the page."""
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['threads']} threads, {bytes_text(machine['memory_bytes'])}"
    command = f"python -m training bench faults --minutes {result['minutes']:g} --seed {result['seed']}"
    lines = ["## Faults", "", f"`{command}`, {result['date']}, on {where}.", "", METHOD, ""]
    lines += ["|promise|fault|tried|held|worst|", "|---|---|---:|---:|---|"]
    for each in result["promises"]:
        cells = (each["promise"], each["name"], each["tried"], each["held"], each["skipped"] or each["worst"])
        lines.append("|".join(["", *map(str, cells), ""]))
    lines += ["", f"{result['violations']} violations."]
    return keep(docs, "faults", "\n".join(lines), {})
