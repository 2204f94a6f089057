"""Verbs that begin and end the realm's processes: `start-all` and `stop-all`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from core.checkpoints import pointed
from core.errors import RealmBusy, UserError
from core.logs import newest_records, start_logging, visible
from core.paths import CHECKOUT, RealmPaths
from core.realm_lock import Holder, holder, same_process
from core.status import realm_status
from safety.child import await_orphans, orphans
from training import ports, status_text, tavern_link
from training.commands.realm import make
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import is_terminal, styled

ANSWER_SECONDS = 30.0
STOP_SECONDS = 90.0
ORPHAN_SECONDS = 60.0


def register(verbs) -> None:
    parser = verb(
        verbs, "start-all", start_all, "make a realm where there is none, start it, print the Tavern's address"
    )
    parser.add_argument("--port", type=port, help="the Tavern's port for this run, instead of config.json's")
    parser.add_argument("--foreground", action="store_true", help="stay here and show a line; Ctrl-C stops the realm")
    verb(verbs, "stop-all", stop_all, "save a checkpoint and end every process of the realm")


def port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise ValueError(text)
    return number


# Start


def start_all(realm: Realm) -> int | None:
    paths = realm.paths
    made = make(paths)
    while (running := holder(paths)) is not None:  # one that is just ending is waited for
        if realm.args.port not in (None, running.port):
            raise UserError(
                f"the realm runs already, on port {running.port}; `stop-all`, then start it on {realm.args.port}"
            )
        if _await_answer(realm, running.port, lambda: holder(paths) is None):
            return _greet(realm, running.port, "runs already")
    _await_last_run(paths)
    port = realm.args.port or realm.config.tavern.port
    if not _is_ours_to_take(realm, port):
        return start_all(realm)
    if realm.args.foreground:
        return _foreground(realm, port)
    supervisor = _spawn(paths, port)
    answering = _await_answer(realm, port, lambda: supervisor.poll() is not None)
    if answering is None:
        raise UserError(f"the realm did not start: {_reason(paths)}")
    return _greet(realm, answering, "is made and runs" if made else "runs")


def _await_last_run(paths: RealmPaths) -> None:
    """After a crash of the supervisor its services may still be saving; they have the port and the hero."""
    if left := orphans(paths.services):
        print(f"waiting for the last run's {', '.join(service['name'] for service in left)} to end", file=sys.stderr)
        await_orphans(paths.services, ORPHAN_SECONDS)


def _is_ours_to_take(realm: Realm, port: int) -> bool:
    """Whether the port is free; False if a start beside us was quicker. Raises UserError naming the next free one."""
    host = realm.config.tavern.host
    if ports.is_free(host, port):
        return True
    if holder(realm.paths) is not None:
        return False
    owner, other = ports.listener(port), ports.next_free(host, port)
    offer = f" Port {other} is free: `start-all --port {other}`, or `config set tavern.port {other}`." if other else ""
    raise UserError(f"port {port} is taken{f' by {owner}' if owner else ''}.{offer}")


def _spawn(paths: RealmPaths, port: int) -> subprocess.Popen:
    """The supervisor in a session of its own, with none of our streams."""
    command = [sys.executable, "-m", "training.watchdog_process", "--root", str(paths.root), "--port", str(port)]
    with open(paths.logs / "watchdog.out", "ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=CHECKOUT, start_new_session=True
        )


def _await_answer(realm: Realm, port: int, gave_up: Callable[[], bool]) -> int | None:
    """The port on which the Tavern answers: another supervisor's, if that was quicker than ours. None: all gave up."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not ports.answers(realm.config.tavern.host, port, "/healthz"):
        if gave_up():
            other = holder(realm.paths)
            if other is None:
                return None
            port, gave_up = other.port, lambda: holder(realm.paths) is None
        if time.monotonic() > deadline:
            raise UserError(
                f"the Tavern does not answer on port {port} after {ANSWER_SECONDS:.0f} s: {_reason(realm.paths)}"
            )
        time.sleep(0.05)
    return port


def _reason(paths: RealmPaths) -> str:
    """The last complaint in the logs of the last minute."""
    since = time.time() - 60.0
    records = [record for record in newest_records(paths, count=200) if record["time"] >= since]
    complaints = [record for record in records if record["level"] in ("error", "critical")] or [
        record for record in records if record["level"] == "warning"
    ]
    return visible(complaints[-1]["message"]) if complaints else f"see {paths.logs}"


def _greet(realm: Realm, port: int, what: str) -> None:
    url = tavern_link.address(realm.config.tavern, port)
    link = tavern_link.link(realm.paths, realm.config.tavern, port)
    text = f"The realm {what}. The Tavern: {styled(link, 'gold')}\nDrop a .jsonl into {realm.paths.inbox}"
    realm.report({"url": url, "link": link, "port": port, "root": str(realm.paths.root)}, text)


def _foreground(realm: Realm, port: int) -> int:
    from training.watchdog_process import supervise

    start_logging(realm.paths, "watchdog", stderr=False)
    _greet(realm, port, "starts here; Ctrl-C stops it")
    sys.stdout.flush()
    supervise(realm.paths, port, _live_line(realm) if is_terminal() else lambda: None)
    print("\nThe realm has stopped.")
    return 0


def _live_line(realm: Realm) -> Callable[[], None]:
    due = 0.0

    def show() -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + 1.0
            width = shutil.get_terminal_size().columns - 1
            text = status_text.line(realm_status(realm.paths, realm.config, realm.ledger))
            print(f"\r\x1b[K{text[:width]}", end="", flush=True)

    return show


# Stop


def stop_all(realm: Realm) -> None:
    paths = realm.paths
    running = holder(paths) if realm.exists else None
    left = orphans(paths.services) if realm.exists and running is None else []
    if running is not None:
        os.kill(running.pid, signal.SIGTERM)
        _await_end(running)
    elif left:
        await_orphans(paths.services, ORPHAN_SECONDS)
    checkpoint = pointed(paths.tip)
    stopped = running is not None or bool(left)
    saved = f" The hero rests at checkpoint {checkpoint}." if checkpoint else ""
    realm.report(
        {"stopped": stopped, "checkpoint": checkpoint},
        (f"The realm has stopped.{saved}" if stopped else f"Nothing runs in {paths.root}."),
    )


def _await_end(running: Holder) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    dots = sys.stderr.isatty()
    while same_process(running.pid, running.started):
        if time.monotonic() > deadline:
            raise RealmBusy(
                f"the supervisor (pid {running.pid}) has not ended after {STOP_SECONDS:.0f} s; "
                f"`logs watchdog` says why, `stop-all` asks again, `kill -9 {running.pid}` ends it"
            )
        if dots:
            print(".", end="", file=sys.stderr, flush=True)
        time.sleep(0.1)
    if dots:
        print(file=sys.stderr)
