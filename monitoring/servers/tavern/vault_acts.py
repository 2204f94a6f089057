"""What a visitor does to one checkpoint: the verbs that the API and the pages' buttons share. It knows no HTML.

Pointers are the trainer's, so promoting and rolling back are wishes; the rest is done here, by management's functions.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core import control, turning_back
from core.errors import CheckpointError, RealmError, nearest
from management import model_versioner, trash
from management.vault import pin, problem_of, unpin
from monitoring.servers.tavern.exports import Wanted
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.vault_views import resolve

Options = Mapping[str, str]
Done = tuple[dict[str, Any], int]
READING = ("verify", "delete", "undelete", "tag")  # verbs that compare sums of whole checkpoints
_reading = threading.Lock()  # gigabytes take a thread for a while; the others are for visitors who read


def act(realm: Realm, given: str, verb: str, options: Options) -> tuple[str, dict[str, Any], int]:
    """The checkpoint that `given` means, what came of it, and the status. Raises Refusal."""
    if verb not in VERBS:
        known = f"{nearest(verb, VERBS) or '.'} Known: {', '.join(VERBS)}"
        raise Refusal(404, "unknown_verb", f"There is no {verb[:40]!r}{known}")
    checkpoint = resolve(realm, given)
    with _one_at_a_time(verb):
        try:
            facts, status = VERBS[verb](realm, checkpoint, options)
        except CheckpointError as problem:
            raise Refusal(409, "not_whole", str(problem)) from None
    realm.stale()
    return checkpoint, facts, status


@contextlib.contextmanager
def _one_at_a_time(verb: str) -> Iterator[None]:
    if verb not in READING:
        yield
        return
    if not _reading.acquire(blocking=False):
        raise Refusal(409, "busy", "Another checkpoint is being read through; try again when that is done.")
    try:
        yield
    finally:
        _reading.release()


def _promote(realm: Realm, checkpoint: str, options: Options) -> Done:
    return {"wish": control.wish(realm.ledger, "promote", checkpoint)}, 202


def _roll_back(realm: Realm, checkpoint: str, options: Options) -> Done:
    again = options.get("again") in ("true", "1", "on")
    argument = f"{checkpoint} {turning_back.AGAIN}" if again else checkpoint
    return {"wish": control.wish(realm.ledger, "rollback", argument), "again": again}, 202


def _pin(realm: Realm, checkpoint: str, options: Options) -> Done:
    pin(realm.paths, realm.ledger, checkpoint)
    return {"pinned": True}, 200


def _unpin(realm: Realm, checkpoint: str, options: Options) -> Done:
    return {"pinned": unpin(realm.ledger, checkpoint)}, 200


def _verify(realm: Realm, checkpoint: str, options: Options) -> Done:
    problem = problem_of(realm.paths, checkpoint)
    return {"verified": problem is None, "problem": problem}, 200


def _export(realm: Realm, checkpoint: str, options: Options) -> Done:
    wanted = Wanted(options.get("cooldown") or "auto", options.get("dtype") or None)
    if not (realm.paths.vault / checkpoint).is_dir():
        raise Refusal(409, "not_whole", f"{checkpoint} is not in the Vault any more.")
    if (realm.paths.exports / checkpoint).exists():
        raise Refusal(409, "exported_already", f"exports/{checkpoint} exists already; remove it to export anew.")
    if (folder := realm.exports.start(checkpoint, wanted)) is None:
        raise Refusal(409, "busy", "Another export is on its way; try again when it is done.")
    return {"folder": str(folder)}, 202


def _delete(realm: Realm, checkpoint: str, options: Options) -> Done:
    _or_stays(lambda: trash.delete(realm.paths, realm.ledger, checkpoint))
    goes = trash.deleted(realm.paths)[checkpoint]["goes"]
    return {"deleted": True, "undo": f"/api/vault/{checkpoint}/undelete", "until": goes}, 200


def _undelete(realm: Realm, checkpoint: str, options: Options) -> Done:
    _or_stays(lambda: trash.undelete(realm.paths, realm.ledger, checkpoint))
    return {"deleted": False}, 200


def _tag(realm: Realm, checkpoint: str, options: Options) -> Done:
    name = options.get("name", "").strip()
    _or_stays(lambda: model_versioner.tag(realm.paths, realm.ledger, name, checkpoint))
    return {"name": name}, 200


def _untag(realm: Realm, checkpoint: str, options: Options) -> Done:
    name = options.get("name", "")
    _or_stays(lambda: model_versioner.untag(realm.ledger, name))
    return {"name": name}, 200


def _or_stays(work: Callable[[], object]) -> None:
    try:
        work()
    except CheckpointError:
        raise
    except RealmError as problem:
        raise Refusal(409, "refused", f"{problem}.") from None


VERBS: dict[str, Callable[[Realm, str, Options], Done]] = {
    "promote": _promote,
    "rollback": _roll_back,
    "pin": _pin,
    "unpin": _unpin,
    "verify": _verify,
    "export": _export,
    "delete": _delete,
    "undelete": _undelete,
    "tag": _tag,
    "untag": _untag,
}
