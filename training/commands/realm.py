"""Verbs of the realm as a whole: `init`, `status`, `pause`, `resume`, `skip`."""

import contextlib
import time

from core.config import Config, check_config
from core.control import is_paused, wish
from core.durable import write_json
from core.errors import UserError
from core.paths import RealmPaths
from core.realm_lock import holder
from core.status import quest_in_battle, realm_status, service_states
from core.training_queue import TrainingQueue
from monitoring.gpu import read_gpus
from training import status_text, tavern_link
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import CLEAR, as_json, is_terminal

WATCH_SECONDS = 1.0


def register(verbs) -> None:
    parser = verb(verbs, "init", init, "make a realm: its folders and a config.json with what people change first")
    parser.add_argument("--name", default="DIO", help="the hero's name (default DIO)")
    parser.add_argument("--seed", type=int, default=7, help="seed of everything random (default 7)")
    parser.add_argument("--port", type=int, default=8888, help="the Tavern's port (default 8888)")
    parser = verb(verbs, "status", status, "the hero, the battle, the queue, the services, the disk")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    verb(verbs, "pause", pause, "stop training after the step it is in; the place in the quest is kept")
    verb(verbs, "resume", resume, "go on after a pause")
    verb(
        verbs,
        "skip",
        skip,
        "save a checkpoint and send the quest in training to the end of the low queue, its place kept",
    )


def make(paths: RealmPaths, name: str = "DIO", seed: int = 7, port: int = 8888) -> bool:
    """Make what is missing of a realm; a config.json that is there stays. True if one was written."""
    values = {
        "hero": {"name": name},
        "seed": seed,
        "batch_size": 16,
        "max_length": 1024,
        "tavern": {"port": port},
        "idle_generation": {"enabled": True},
    }
    check_config(values, "init")
    paths.make()
    if paths.config.exists():
        return False
    write_json(paths.config, values)
    return True


def init(realm: Realm) -> None:
    args = realm.args
    written = make(realm.paths, args.name, args.seed, args.port)
    about = "with a new config.json" if written else "its config.json stays as it is"
    realm.report(
        {"root": str(realm.paths.root), "config_written": written}, f"A realm is in {realm.paths.root}, {about}."
    )


def status(realm: Realm) -> None:
    if not realm.args.watch:
        now = _status(realm)
        realm.report(now, lambda: _page(realm, now))
        return
    try:
        while True:
            now = _status(realm)
            page = as_json(now, indent=False) if realm.args.json else _page(realm, now)
            print(CLEAR + page if is_terminal() and not realm.args.json else page, flush=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def _status(realm: Realm) -> dict:
    """The realm's state, told also while its config.json is wrong: that is when it is needed."""
    try:
        config, wrong = realm.config, []
    except UserError as problem:
        config, wrong = Config(), [{"code": "config_wrong", "text": str(problem), "since": time.time()}]
    now = realm_status(realm.existing, config, realm.ledger, read_gpus())
    return {**now, "alerts": wrong + now["alerts"]}


def _page(realm: Realm, now: dict) -> str:
    """`status` for people, who get the link that opens the door; JSON is kept and passed on, so there is no token in it."""
    running, link = holder(realm.paths), None
    if running:
        with contextlib.suppress(UserError):  # a config.json that is wrong is told among the alerts
            link = tavern_link.link(realm.paths, realm.config.tavern, running.port)
    return status_text.page(now, link)


def pause(realm: Realm) -> None:
    if is_paused(realm.ledger):
        realm.report({"verb": "pause", "wish": None}, "Paused already; `resume` goes on.")
        return
    _wish(
        realm,
        "pause",
        "The trainer saves a checkpoint after the step it is in and rests; `resume` goes on.",
        "No trainer runs now; when one starts it will rest until `resume`.",
    )


def resume(realm: Realm) -> None:
    if not is_paused(realm.ledger):
        realm.report({"verb": "resume", "wish": None}, "Not paused; nothing to resume.")
        return
    _wish(
        realm,
        "resume",
        "The trainer goes on at once.",
        "No trainer runs now; when one starts it will train. `start-all` starts it.",
    )


def skip(realm: Realm) -> None:
    quest = quest_in_battle(realm.existing, TrainingQueue(realm.existing, realm.ledger))
    if quest is None:
        raise UserError("no quest is in training, so there is none to skip; `quest list --state processing` shows it")
    _wish(
        realm,
        "skip",
        "The trainer saves a checkpoint and sends the quest to low; its place in it is kept.",
        "No trainer runs now; the quest goes to low when one starts.",
        str(quest),
    )


def _wish(realm: Realm, name: str, running: str, stopped: str, argument: str | None = None) -> None:
    """Write the wish and say what will come of it."""
    trains = any(service["name"] == "trainer" and service["pid"] for service in service_states(realm.existing))
    key = wish(realm.ledger, name, argument)
    text = running if trains else stopped
    realm.report({"verb": name, "wish": key, "trainer_runs": trains, "text": text}, text)
