"""`vault promote|rollback|pin|unpin|tag|untag|tags|delete|undelete|prune`: what people do to checkpoints.

Pointers belong to the trainer while the realm runs: it is asked, and its answer awaited. With nobody running it, the verb
does it here, under the realm's lock.
"""

import time
from collections.abc import Callable

from core import control, turning_back
from core.errors import RealmBusy, RealmError
from core.realm_lock import held, holder
from core.training_queue import TrainingQueue
from management import model_versioner, retention, trash
from management.vault import find, pin, unpin
from safety.child import await_orphans
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import moment_text, table

PATIENCE_SECONDS = 60.0
ORPHAN_SECONDS = 60.0
ALONE = 0  # the port of a holder that is no supervisor, but a verb like these
WHICH = "a checkpoint: its name or the beginning of it, one given by `vault tag`, or tip, current, champion"


def register(actions) -> None:
    def act(name: str, run: Callable, help: str, which: str = WHICH, **options):
        parser = verb(actions, name, run, help)
        parser.add_argument("id", metavar="ID", help=which, **options)
        return parser

    act("promote", promote, "let models/current_model lead to a checkpoint; training goes on from the tip as before")
    default = "where to (default: where the tip comes from)"
    parser = act("rollback", roll_back, "go on training from an earlier checkpoint, promoted too", default, nargs="?")
    text = "quests that it lacks wait to be trained again; without this they stay finished"
    parser.add_argument("--again", action="store_true", help=text)
    act("pin", pin_it, "keep a checkpoint whatever retention says")
    act("unpin", unpin_it, "let retention decide again")
    parser = verb(actions, "tag", tag, "give a checkpoint a name that stands wherever an ID does; it is pinned")
    parser.add_argument("name", metavar="NAME", help="letters, digits and . _ -")
    parser.add_argument("id", metavar="ID", nargs="?", default="current", help=f"{WHICH} (default: current)")
    parser = verb(actions, "untag", untag, "take a name back")
    parser.add_argument("name", metavar="NAME")
    verb(actions, "tags", list_tags, "every name that was given")
    act("delete", delete, "into the trash, from which `vault undelete` brings it back for a day")
    act("undelete", undelete, "bring a deleted checkpoint back", "as `vault list --deleted` says it")
    parser = verb(actions, "prune", prune, "delete what retention says now, and what lay in the trash for a day")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def _checkpoint(realm: Realm) -> str:
    return find(realm.existing, realm.ledger, realm.args.id)


# Pointers


def promote(realm: Realm) -> None:
    checkpoint = _checkpoint(realm)
    turn(
        realm,
        ("promote", checkpoint),
        lambda: turning_back.promote(realm.paths, realm.ledger, realm.config.hero.name, checkpoint),
    )
    text = f"models/current_model leads to {checkpoint}; training goes on from the tip as before."
    realm.report({"verb": "promote", "checkpoint": checkpoint}, text)


def roll_back(realm: Realm) -> None:
    checkpoint = _checkpoint(realm) if realm.args.id else turning_back.parent_of_tip(realm.existing)
    again = realm.args.again
    queue = TrainingQueue(realm.paths, realm.ledger)
    turn(
        realm,
        ("rollback", f"{checkpoint} {turning_back.AGAIN}" if again else checkpoint),
        lambda: turning_back.roll_back(realm.paths, realm.ledger, queue, realm.config.hero.name, checkpoint, again),
    )
    lacking = turning_back.lacking(realm.paths, realm.ledger, realm.config.hero.name, checkpoint)
    quests = ", ".join(map(str, lacking))
    text = f"Training goes on from {checkpoint}, which is promoted, too."
    if lacking and again:
        text += f" Quests {quests}, which it lacks, are trained again."
    elif lacking:
        text += f" It lacks quests {quests}; they stay finished. `quest retry ID --force` trains one again."
    realm.report({"verb": "rollback", "checkpoint": checkpoint, "lacking": lacking, "again": again}, text)


def turn(realm: Realm, wish: tuple[str, str], alone: Callable[[], object]) -> None:
    """By the trainer where the realm runs, else here. Raises RealmError where it was not done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        running = holder(realm.paths)
        if running and running.port != ALONE:
            return _ask(realm, *wish, deadline)
        try:
            with held(realm.paths, ALONE):
                await_orphans(realm.paths.services, ORPHAN_SECONDS)  # a trainer whose supervisor died may be saving
                alone()
                return
        except RealmBusy:  # somebody began just now: the supervisor, or a verb that will soon be done
            if time.monotonic() > deadline:
                raise


def _ask(realm: Realm, name: str, argument: str, deadline: float) -> None:
    key = control.wish(realm.ledger, name, argument)
    while (result := control.result(realm.ledger, key)) is None:
        if time.monotonic() > deadline:
            raise RealmError(
                f"the trainer has not come to it in {PATIENCE_SECONDS:.0f} s; it will when it can. `status` shows it"
            )
        time.sleep(0.1)
    if result != "done":
        raise RealmError(f"the trainer did not {name}: {result}")


# Pins and names


def pin_it(realm: Realm) -> None:
    checkpoint = _checkpoint(realm)
    pin(realm.paths, realm.ledger, checkpoint)
    realm.report({"verb": "pin", "checkpoint": checkpoint, "pinned": True}, f"{checkpoint} is pinned; it stays.")


def unpin_it(realm: Realm) -> None:
    checkpoint = _checkpoint(realm)
    still = unpin(realm.ledger, checkpoint)
    text = "still pinned by its name; `vault untag` takes that back" if still else "not pinned any more"
    realm.report({"verb": "unpin", "checkpoint": checkpoint, "pinned": still}, f"{checkpoint} is {text}.")


def tag(realm: Realm) -> None:
    checkpoint, name = _checkpoint(realm), realm.args.name
    model_versioner.tag(realm.paths, realm.ledger, name, checkpoint)
    realm.report({"name": name, "checkpoint": checkpoint}, f"{name} is {checkpoint}, which is pinned.")


def untag(realm: Realm) -> None:
    realm.existing  # noqa: B018 - says so where there is no realm
    name, checkpoint = realm.args.name, model_versioner.untag(realm.ledger, realm.args.name)
    realm.report(
        {"name": name, "checkpoint": checkpoint}, f"{name} is free; {checkpoint} stays as long as retention says."
    )


def list_tags(realm: Realm) -> None:
    rows = model_versioner.versions(realm.ledger)
    columns = ("name", "checkpoint", "step", "validation_loss", "created")
    cells = [[*(row[name] for name in columns[:-1]), moment_text(row["created"])] for row in rows]
    realm.report(rows, table(columns, cells) if rows else "no names yet; `vault tag NAME ID` gives one")


# Going


def delete(realm: Realm) -> None:
    checkpoint = _checkpoint(realm)
    trash.delete(realm.paths, realm.ledger, checkpoint)
    realm.report(
        {"verb": "delete", "checkpoint": checkpoint},
        f"{checkpoint} is in the trash; `vault undelete {checkpoint}` brings it back for a day.",
    )


def undelete(realm: Realm) -> None:
    trash.undelete(realm.existing, realm.ledger, realm.args.id)
    realm.report({"verb": "undelete", "checkpoint": realm.args.id}, f"{realm.args.id} is back in the Vault.")


def prune(realm: Realm) -> None:
    dry = realm.args.dry_run
    gone = retention.retain(realm.existing, realm.config.retention, realm.ledger, dry_run=dry)
    emptied = [] if dry else trash.empty(realm.paths, room_is_short=False)
    what = "would go" if dry else "gone"
    lines = [f"{what}: {checkpoint}" for checkpoint in gone] + [f"gone from the trash: {name}" for name in emptied]
    realm.report({"deleted": gone, "emptied": emptied, "dry_run": dry}, "\n".join(lines) or "nothing is to go")
