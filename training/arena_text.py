"""How the arena's answers read in a terminal: facts in, sentences out. It knows no command and changes nothing."""

from collections.abc import Sequence
from typing import Any

from training.terminal import cell_text, duration_text, number_text, styled, table

Facts = dict[str, Any]


def energy_text(value: float) -> str:
    """Small agents' steps cost hundredths, so small numbers keep theirs."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def created(facts: Facts) -> str:
    head = f"{styled(facts['name'], 'gold')} is born: {facts['parameters']:,} parameters"
    shape = f"{facts['n_embd']} wide, {_many(facts['n_layer'], 'layer')}, {_many(facts['n_head'], 'head')}"
    return f"{head} ({shape}), learning rate {facts['learning_rate']:g}. It is the current agent."


def chosen(facts: Facts) -> str:
    return f"{styled(facts['name'], 'gold')} is the current agent, at step {facts['step']:,}."


def trained(facts: Facts) -> str:
    if facts["validation_loss"] is None:
        return (
            f"{facts['agent']} is at step {facts['step']:,}, and its loss is no number any more: `diagnose` says why, `load` "
            "brings a saved state back."
        )
    return (
        f"{styled(facts['agent'], 'gold')} is at step {facts['step']:,}: loss {facts['loss']:.4g}, held-out "
        f"{facts['validation_loss']:.4g} nats per character (perplexity {facts['perplexity']:.4g}), uniqueness "
        f"{share(facts['uniqueness'])}, score {facts['score']:.1f}. {energy_text(facts['energy'])} energy left."
    )


def generated(facts: Facts) -> str:
    worth = f"uniqueness {share(facts['uniqueness'])}, novelty {share(facts['novelty'])}, validity {share(facts['validity'])}"
    names = "\n".join(f"  {cell_text(name or '(nothing)')}" for name in facts["names"])
    return f"{names}\n{worth}; {facts['energy_spent']:.3g} energy spent, {energy_text(facts['energy'])} left."


def rested(facts: Facts) -> str:
    return f"You have rested ({_many(facts['rests'], 'time')} so far): {energy_text(facts['energy'])} energy."


def settings(facts: Facts) -> str:
    lines = "\n".join(f"  {name:14} {cell_text(value)}" for name, value in facts["config"].items())
    return f"{styled(facts['agent'], 'gold')}\n{lines}"


def agents(rows: Sequence[Facts]) -> str:
    if not rows:
        return "No agent yet. `create_agent Tiny 16 1 2` makes one: a name, n_embd, n_layer, n_head."
    head = ("", "name", "shape", "parameters", "step", "perplexity", "score", "saved")
    return table(
        head,
        (
            (
                "*" if row["current"] else "", row["name"], f"{row['n_embd']}/{row['n_layer']}/{row['n_head']}",
                number_text(row["parameters"]), row["step"], row["perplexity"], f"{row['score']:.1f}", ", ".join(row["saved"]),
            )
            for row in rows
        ),
    )  # fmt: skip


def leaderboard(rows: Sequence[Facts]) -> str:
    if not rows:
        return agents(rows)
    head = ("", "name", "score / energy", "score", "energy", "elo", "won", "lost", "drawn", "perplexity", "uniqueness")
    return table(
        head,
        (
            (
                row["rank"], f"{row['name']}{' ♛' if row['champion'] else ''}", row["efficiency"], f"{row['score']:.1f}",
                energy_text(row["energy"]), f"{row['elo']:.0f}", row["wins"], row["losses"], row["draws"], row["perplexity"],
                share(row["uniqueness"]),
            )
            for row in rows
        ),
    )  # fmt: skip


def fought(facts: Facts) -> str:
    head = ("", "score", "perplexity", "uniqueness", "novelty", "steps", "energy", "elo")
    rows = [
        (
            name, f"{side['score']:.1f}", side["perplexity"], share(side["uniqueness"]), share(side["novelty"]), side["steps"],
            energy_text(side["energy_spent"]), f"{side['elo']:.0f}",
        )
        for name, side in facts["agents"].items()
    ]  # fmt: skip
    words = "\n".join(
        f"  {name}: {', '.join(map(cell_text, side['names'][:8])) or 'nothing'}"
        for name, side in facts["agents"].items()
    )
    if facts["draw"]:
        end = "A draw: nobody is ahead."
    else:
        end = f"{styled(facts['winner'], 'gold')} wins, and gives {energy_text(facts['prize'])} energy back."
    return f"{table(head, rows)}\n{words}\n{end} {energy_text(facts['energy'])} energy left."


def battles(rows: Sequence[Facts]) -> str:
    if not rows:
        return "No battle yet. `battle A B 60` fights one."
    return table(
        ("", "agents", "winner", "scores", "steps", "text"),
        (
            (
                row["battle"],
                " - ".join(row["agents"]),
                row["winner"] or "draw",
                " - ".join(f"{side['score']:.1f}" for side in row["agents"].values()),
                row["steps"],
                row["data"],
            )
            for row in rows
        ),
    )


def diagnosed(facts: Facts) -> str:
    if not facts["findings"]:
        return f"{facts['agent']} is healthy, at step {facts['step']:,}."
    return "\n".join(
        f"{styled(finding['kind'], 'red')} in {finding['where']}: {finding['advice']}" for finding in facts["findings"]
    )


def pace(facts: Facts) -> str:
    """One line while something runs."""
    loss = facts["loss"]
    if isinstance(loss, dict):
        told = "  ".join(f"{name} {value:.3f}" for name, value in loss.items() if value is not None)
    else:
        told = f"loss {loss:.3f}"
    if facts["phase"] == "writing":
        return f"{told}  writing"
    return f"step {facts['step']:,}/{facts['steps']:,}  {told}  {duration_text(facts['eta_seconds'])} to go"


def commands(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(usage) for usage, _ in rows)
    return "\n".join(f"{styled(usage.ljust(width), 'gold')}  {help}" for usage, help in rows)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
