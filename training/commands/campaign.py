"""`campaign new|list|show|archive`: named chapters of the hero's life."""

from typing import Any

from core import turning_back
from core.campaign import archive, begin, campaigns, check_new, find
from core.checkpoints import pointed
from core.training_queue import TrainingQueue
from management import vault
from training.commands.vault_acts import WHICH, turn
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import duration_text, moment_text, number_text, table


def register(verbs) -> None:
    actions = group(verbs, "campaign", "chapters of the hero's life: new, list, show, archive")
    parser = verb(actions, "new", new, "begin another chapter, from where the hero stands or from a checkpoint")
    parser.add_argument("name", metavar="NAME", help="letters, digits and _")
    parser.add_argument(
        "--from", dest="id", metavar="ID", help=f"take the hero back to {WHICH} (default: go on from the tip)"
    )
    parser = verb(actions, "list", list_campaigns, "the hero's campaigns, the newest first")
    parser.add_argument("--all", action="store_true", help="archived ones, too")
    parser = verb(actions, "show", show, "one campaign: its steps, quests, tokens, experience")
    parser.add_argument("name", metavar="NAME")
    parser = verb(
        actions, "archive", put_away, "leave a campaign out of the list; its checkpoints stay as retention says"
    )
    parser.add_argument("name", metavar="NAME")


def new(realm: Realm) -> None:
    hero, args = realm.config.hero.name, realm.args
    name = check_new(realm.ledger, hero, args.name)
    start = vault.find(realm.existing, realm.ledger, args.id) if args.id else pointed(realm.existing.tip)
    if args.id and start != pointed(realm.paths.tip):
        queue = TrainingQueue(realm.paths, realm.ledger)
        turn(
            realm,
            ("rollback", start),
            lambda: turning_back.roll_back(realm.paths, realm.ledger, queue, hero, start),
        )
    begin(realm.ledger, hero, name, start)
    told = {"name": name, "hero": hero, "from": start}
    realm.report(told, f"{hero} begins the campaign {name}" + (f" from {start}." if start else " at birth."))


def list_campaigns(realm: Realm) -> None:
    found = campaigns(realm.ledger, realm.config.hero.name)
    shown = [campaign for campaign in found if realm.args.all or not campaign["archived"]]
    head = ("name", "active", "steps", "quests", "tokens", "trained", "XP", "began")
    realm.report(shown, lambda: table(head, map(_row, shown)))


def _row(campaign: dict[str, Any]) -> tuple:
    steps = None if campaign["last_step"] is None else f"{campaign['first_step']:,} to {campaign['last_step']:,}"
    trained = duration_text(campaign["seconds"])
    began = campaign["created"] and moment_text(campaign["created"])
    numbers = (campaign["quests"], number_text(campaign["tokens"]), trained, campaign["xp"])
    return campaign["name"], campaign["active"], steps, *numbers, began


def show(realm: Realm) -> None:
    found = find(realm.ledger, realm.config.hero.name, realm.args.name)
    realm.report(
        found, lambda: "\n".join(f"{key:14} {'-' if value is None else value}" for key, value in found.items())
    )


def put_away(realm: Realm) -> None:
    archive(realm.ledger, realm.config.hero.name, realm.args.name)
    realm.report(
        {"name": realm.args.name, "archived": True}, f"{realm.args.name} is archived; `campaign list --all` shows it."
    )
