"""Checks of one realm: port, room, folders, checkpoints, files that lie where they should not, processes left over."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from core import checkpoints
from core.config import Disk
from core.disk import Level, need, words
from core.errors import CheckpointError
from core.paths import QUEUE_STATES
from core.quest import COMPANIONS
from core.room import Room
from management.auto_disk_manager import judge
from safety.child import orphans
from training import ports
from training.doctor.case import Case, Finding, bad, look, ok
from training.terminal import bytes_text

OLD_CLAIM_SECONDS = 3600.0


def clock(case: Case) -> Iterator[Finding]:
    newest = max((manifest.created for manifest in checkpoints.manifests(case.paths)), default=0.0)
    if newest > time.time() + 60:
        yield look("clock", "the clock is behind the newest checkpoint", "set the clock; let a time server keep it")
    else:
        yield ok("clock", f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S %Z')}")


def port(case: Case) -> Iterator[Finding]:
    if case.running:
        yield ok("port", f"the realm runs, the Tavern on port {case.running.port}")
    elif case.config:
        host, wanted = case.config.tavern.host, case.config.tavern.port
        if ports.is_free(host, wanted):
            yield ok("port", f"port {wanted} is free")
            return
        owner, other = ports.listener(wanted), ports.next_free(host, wanted)
        by = f" by {owner}" if owner else ""
        remedy = f"`start-all --port {other}`" if other else "end what listens there"
        yield bad("port", f"port {wanted} is taken{by}", remedy)


def disk(case: Case) -> Iterator[Finding]:
    place = next(folder for folder in (case.paths.root, *case.paths.root.parents) if folder.is_dir())
    room, needed, marks = Room.of(place), need(case.paths), case.config.disk if case.config else Disk()
    level = judge(room, needed, marks, Level.NORMAL)
    if level is Level.NORMAL:
        yield ok("disk", f"{bytes_text(room.free)} free on the realm's disk")
    else:
        severe = bad if level is Level.PAUSED else look
        yield severe("disk", words(room, level, needed), "free space; `vault list` shows what checkpoints take")


def folders(case: Case) -> Iterator[Finding]:
    missing = [folder for folder in case.paths.folders() if not folder.is_dir()]
    locked = [folder for folder in case.paths.folders() if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK)]
    if missing:
        text = f"{len(missing)} folders are missing, the first is {missing[0]}"
        yield look("folders", text, "`doctor --fix` or `start-all` makes them")
    if locked:
        yield bad("folders", f"not writable: {', '.join(map(str, locked))}", "give them to the user who runs the realm")
    if not missing and not locked:
        yield ok("folders", "all folders are there and writable")


def pointers(case: Case) -> Iterator[Finding]:
    """What tip, current_model and champion lead to is hashed; `deep` hashes the whole Vault."""
    links = {"tip": case.paths.tip, "current_model": case.paths.current_model, "champion": case.paths.champion}
    for link in links.values():
        if link.exists() and not link.is_symlink():
            yield bad("pointers", f"{link} is no symlink", "stop the realm and move it away; the next start makes it")
    wanted = {checkpoints.pointed(link): name for name, link in reversed(links.items())}
    others = {manifest.id: manifest.id for manifest in checkpoints.manifests(case.paths)} if case.deep else {}
    problems = {name: _problem(case, checkpoint) for checkpoint, name in {**others, **wanted}.items() if checkpoint}
    broken = {name: problem for name, problem in problems.items() if problem}
    for name, problem in broken.items():
        yield bad("pointers", f"{name}: {problem}", "the trainer goes back to the newest whole one when it starts")
    if not broken:
        yield ok("pointers", "the whole Vault is intact" if case.deep else "what the pointers lead to is intact")


def _problem(case: Case, checkpoint: str) -> str | None:
    try:
        checkpoints.verify(case.paths.vault / checkpoint)
        return None
    except CheckpointError as problem:
        return str(problem)


def half_built(case: Case) -> Iterator[Finding]:
    """What `--fix` sweeps: folders that a crash left while a checkpoint was written."""
    count = sum(not checkpoints.is_held(folder) for folder in case.paths.vault.glob(".building-*"))
    if count and not case.running:
        yield look("half_built", f"{count} half-built checkpoints lie in the Vault", "`doctor --fix` removes them")


def manifests(case: Case) -> Iterator[Finding]:
    for folder in case.paths.vault.iterdir() if case.paths.vault.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            try:
                checkpoints.read(folder)
            except CheckpointError as problem:
                yield look("manifests", str(problem), "it is no checkpoint; move it away if nothing in it is wanted")


def claims(case: Case) -> Iterator[Finding]:
    """Files on their way through validation; the daemon takes them up again when it starts."""
    found = case.paths.claims.iterdir() if case.paths.claims.is_dir() else ()
    old = [path for path in found if not case.running or time.time() - path.lstat().st_ctime > OLD_CLAIM_SECONDS]
    if old:
        remedy = "`logs daemon` says why" if case.running else "`start-all` takes them up"
        yield look("claims", f"{len(old)} files wait in {case.paths.claims}, the first is {old[0].name}", remedy)


def companions(case: Case) -> Iterator[Finding]:
    for folder in filter(Path.is_dir, map(case.paths.queued, QUEUE_STATES)):
        names = {path.name for path in folder.iterdir()}
        for name in sorted(names):
            suffix = next((suffix for suffix in COMPANIONS if name.endswith(suffix)), None)
            if suffix and f"{name.removesuffix(suffix)}.jsonl" not in names:
                yield look(
                    "companions",
                    f"{folder / name} has no quest beside it",
                    "`start-all` brings it to its quest; without one, remove it",
                )


def leftovers(case: Case) -> Iterator[Finding]:
    """A lock's text after a crash is harmless, for the lock died; processes that outlive their supervisor are not."""
    left = [] if case.running else orphans(case.paths.services)
    if left:
        names = ", ".join(f"{service['name']} (pid {service['pid']})" for service in left)
        yield look("leftovers", f"of a supervisor that died, these still live: {names}", "`stop-all` ends them")
    elif case.running:
        yield ok("leftovers", f"the supervisor is pid {case.running.pid}")
    else:
        yield ok("leftovers", "nothing runs, nothing is left over")
