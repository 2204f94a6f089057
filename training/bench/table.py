"""A bench's answer on a terminal. It knows the JSON and nothing of how it was measured."""

from typing import Any

from training.terminal import bytes_text, number_text, styled, table

HEAD = ("", "tokens/s", "min-max", "steady", "min-max", "ours", "steady", "roof", "memory", "1st step", "held-out")


def forge_text(result: dict[str, Any]) -> str:
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['threads']} threads, {bytes_text(machine['memory_bytes'])}"
    parts = [", ".join([where, *machine["gpus"]])]
    for case in result["cases"]:
        parts += ["", styled(case_title(case), "bold"), table(HEAD, rows(case))]
    return "\n".join([*parts, "", LEGEND])


LEGEND = """\
tokens/s: real tokens, whole loop; steady: without the first two steps; ours: how many times as fast the forge was, the
median over rounds; roof: share of what the machine's own matrix products allow; 1st step: from the start of the process
to the end of its first step; held-out: loss in nats after the last step."""


def case_title(case: dict[str, Any]) -> str:
    size = f"{number_text(case['parameters'])} parameters, {case['precision']}"
    work = f"{case['steps']} steps, {case['rows']} rows, {case['tokens']:,} tokens"
    rounds = f"{case['rounds']} round{'s' if case['rounds'] > 1 else ''}"
    return f"{size}: {work}, {rounds}, {case['gemm_flops'] / 1e9:,.0f} GF/s"


def rows(case: dict[str, Any]) -> list[tuple]:
    """A line each, as `HEAD` names the columns."""
    whole = {**case["ratio"], **case["ratio_others"]}
    steady = {**case["ratio_steady"], **case["ratio_others_steady"]}
    return [_row(name, each, whole.get(name), steady.get(name)) for name, each in case["contestants"].items()]


def label(contestant: dict[str, Any]) -> str:
    """The title, and what is not as in the rest of the case."""
    if contestant.get("equal", True):
        return contestant["title"]
    return f"{contestant['title']} ({contestant['precision']}, checkpointing)"


def _row(name: str, each: dict[str, Any], whole: float | None, steady: float | None) -> tuple:
    if each["state"] != "measured":
        return (label(each), each["state"], *[""] * (len(HEAD) - 2))
    memory = each["device_peak_bytes"] or each["peak_bytes"]
    return (
        label(each),
        *_speed(each["tokens_per_second"]),
        *_speed(each["steady_tokens_per_second"]),
        _times(whole),
        _times(steady),
        f"{each['roofline_share']:.0%}",
        bytes_text(memory["median"]),
        f"{each['first_step_seconds']['median']:.1f} s",
        f"{each['held_out_loss']['median']:.4f}",
    )


def _speed(spread: dict[str, float]) -> tuple[str, str]:
    return f"{spread['median']:,.0f}", f"{spread['min']:,.0f}-{spread['max']:,.0f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"
