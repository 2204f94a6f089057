"""What can be wrong with a machine or a realm, found by small checks. It only looks; remedies are words.

To add a check, write it beside its siblings in `machine.py` or `realm.py` and name it in `CHECKS`.
"""

from core.config import load_config
from core.errors import UserError
from core.paths import RealmPaths
from core.realm_lock import holder
from training.doctor import machine, promises, realm
from training.doctor.case import Case, Check, Finding, bad, ok

__all__ = ["Finding", "examine"]

CHECKS: tuple[Check, ...] = (
    machine.python,
    machine.packages,
    machine.sqlite,
    machine.memory,
    machine.gpu,
    machine.kernels,
    machine.inotify,
    realm.clock,
    realm.port,
    realm.disk,
    realm.folders,
    realm.pointers,
    realm.half_built,
    realm.manifests,
    realm.claims,
    realm.companions,
    realm.leftovers,
    promises.promises,
)


def examine(paths: RealmPaths, deep: bool = False) -> list[Finding]:
    """All findings; `deep` hashes every checkpoint and quest, and reads the databases."""
    try:
        config = load_config(paths.config)
        about = ok("config", "config.json is valid" if paths.config.exists() else "no config.json: all defaults")
    except UserError as problem:
        config, about = None, bad("config", str(problem), "`config explain FIELD` says what is allowed")
    case = Case(paths, config, holder(paths), deep)
    return [about, *(finding for check in CHECKS for finding in check(case))]
