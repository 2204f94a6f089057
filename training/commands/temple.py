"""`temple`: the verdicts on the newest battles, and what each quest brought."""

from typing import Any

from core.logs import visible
from management.verdicts import verdicts
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import styled, table

COLOURS = {"blessed": "green", "partial": "gold", "cursed": "red"}


def register(verbs) -> None:
    parser = verb(verbs, "temple", show, "the verdicts on the newest battles, and what each quest brought")
    parser.add_argument("quest", type=int, nargs="?", metavar="QUEST", help="all about the battles of this quest")
    parser.add_argument("-n", "--count", type=int, default=20, help="battles shown (default: %(default)s)")


def show(realm: Realm) -> None:
    args = realm.args
    found = verdicts(realm.ledger, realm.config.hero.name, args.count, args.quest)
    realm.report(
        {"mode": realm.config.temple.mode, "battles": found},
        lambda: (
            ("\n\n".join(map(_lines, found)) if args.quest else _table(found)) or "No battle was fought to its end yet."
        ),
    )


def _table(found: list[dict[str, Any]]) -> str:
    head = ("quest", "name", "verdict", "quality", "held-out", "canaries", "minutes", "XP")
    rows = [
        (
            battle["quest"],
            battle["stem"],
            battle["verdict"],
            battle["quality"],
            change(battle["validation_loss_before"], battle["validation_loss"]),
            change(battle["credit"]["canaries"]),
            battle["credit"]["minutes"],
            battle["xp"],
        )
        for battle in found
    ]
    return table(head, rows) if rows else ""


def change(*values: float | None) -> str | None:
    """2.1, 1.9 -> "2.100 -> 1.900"; one number with its sign; None where nothing is known."""
    if values[-1] is None:
        return None
    if len(values) == 1:
        return f"{values[0]:+.3f}"
    return " -> ".join("?" if value is None else f"{value:.3f}" for value in values)


def _lines(battle: dict[str, Any]) -> str:
    verdict = battle["verdict"] or "not judged"
    title = styled(visible(f"{battle['stem']} (quest {battle['quest']})"), "bold")
    quality = "" if battle["quality"] is None else f", quality {battle['quality']:.2f}"
    lines = [f"{title}: {styled(verdict, COLOURS.get(verdict, 'dim'))}{quality}, {battle['xp']:.1f} XP"]
    lines += [f"  {ritual['mark']:.2f}  {ritual['name']}: {ritual['found']}" for ritual in battle["rituals"]]
    for key, score in battle["canaries"].items():
        lines.append(f"        {key}: {change(score['before'], score['after'])}")
    credit = battle["credit"]
    if credit["loss_per_minute"] is not None:
        lines.append(
            f"  held-out loss {-credit['loss']:+.3f} nats per token in {credit['minutes']:.1f} min of training"
        )
    return "\n".join(lines)
