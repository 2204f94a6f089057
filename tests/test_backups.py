"""Backups to a directory, to a real S3 server and to a real SSH server: whole or not there, sent once, and back again."""

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
import warnings

import pytest

from core.checkpoints import Manifest, commit, record, set_current, set_tip, verify
from core.config import Backup, Config
from core.durable import write_json
from core.errors import RealmError, UserError
from core.ledger import Ledger
from core.paths import RealmPaths
from core.status import alerts
from management import backup_manager, backup_schedule
from management.backup_manager import back_up, kept, prune, records, restore
from management.backup_target import Target
from training.backup_process import Backups
from training.cli import main

DAY = 86400.0


@pytest.fixture
def saved(realm, ledger):
    """Commit a checkpoint of some bytes, tip and current."""

    def save(step: int) -> Manifest:
        def build(folder):
            (folder / "model.safetensors").write_bytes(step.to_bytes(4, "little") * 5000)
            (folder / "tokenizer.json").write_bytes(b"{}" * 3000)

        manifest = commit(realm, Manifest("DIO", "first", step), build)
        record(ledger, manifest, "saved")
        set_tip(realm, manifest.id), set_current(realm, manifest.id)
        return manifest

    return save


# Servers


@contextlib.contextmanager
def s3(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="realm")
        yield "s3://realm/of/training"
    finally:
        server.stop()


@contextlib.contextmanager
def sftp(tmp_path, monkeypatch):
    """One user, let in by the key in a fresh ~/.ssh."""
    pytest.importorskip("paramiko")
    asyncssh = pytest.importorskip("asyncssh")
    home, served = tmp_path / "home", tmp_path / "served"
    (home / ".ssh").mkdir(parents=True), served.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key, host_key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(home / ".ssh" / "id_ed25519")
    loop, ready = asyncio.new_event_loop(), threading.Event()

    connections = []

    class Door(asyncssh.SSHServer):
        def connection_made(self, connection):
            connections.append(connection)

    async def serve():
        server = await asyncssh.create_server(
            Door,
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(key.export_public_key().decode()),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(served)),
        )
        serve.port = server.sockets[0].getsockname()[1]
        ready.set()
        await serve.stopped.wait()
        server.close()
        await server.wait_closed()
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        await asyncio.sleep(0.05)  # the transports' own farewell

    def run():
        asyncio.set_event_loop(loop)
        serve.stopped = asyncio.Event()
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    public = host_key.export_public_key().decode().strip()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{serve.port} {public}\n")
    try:
        yield f"sftp://keeper@127.0.0.1:{serve.port}/backups"
    finally:
        loop.call_soon_threadsafe(serve.stopped.set)
        thread.join(10)


@contextlib.contextmanager
def directory(tmp_path, monkeypatch):
    yield str(tmp_path / "elsewhere" / "backups")


@pytest.fixture(params=[directory, s3, sftp], ids=lambda place: place.__name__)
def url(request, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the servers' own
        with request.param(tmp_path, monkeypatch) as place:
            yield place


@pytest.fixture
def opened(url):
    with contextlib.ExitStack() as stack:
        yield lambda place: stack.enter_context(Target(place))


def test_a_backup_goes_there_once_and_comes_back_as_it_was(realm, ledger, saved, url, opened):
    manifest = saved(3)
    write_json(realm.config, {"seed": 11})
    target = opened(url)
    made, sent = back_up(realm, ledger, manifest.id, target)
    assert sent >= manifest.bytes and [known.checkpoint for known in records(target)] == [manifest.id]
    again, resent = back_up(realm, ledger, manifest.id, target, lambda: made.created + 5)
    assert resent == 0 and again.objects() == made.objects()
    newer = saved(4)
    ledger.add("quests", stem="waits", origin="user", state="queued", priority="normal", created=0, updated=0)
    _, sent = back_up(realm, ledger, newer.id, target, lambda: made.created + 9)
    assert sent < newer.bytes + realm.ledger.stat().st_size + 9000 - 6000, "the tokenizer is there already"

    other = RealmPaths(realm.root.parent / "other")
    assert main(["--root", str(other.root), "vault", "restore", url]) == 0
    assert verify(other.vault / newer.id) == newer and other.config.read_bytes() == realm.config.read_bytes()
    assert main(["--root", str(other.root), "vault", "verify"]) == 0, "what is not there is not asked for"
    assert len(Ledger(other.ledger).all("SELECT * FROM checkpoints")) == 2
    assert Ledger(other.ledger).one("SELECT state FROM quests")["state"] == "vanished"
    assert main(["--root", str(other.root), "vault", "restore", manifest.id[:20], "--from", url]) == 0
    assert verify(other.vault / manifest.id) == manifest

    policy = Backup(keep=1, keep_daily=0, keep_weekly=0)
    assert prune(target, "DIO", policy) == [manifest.id, manifest.id]
    assert [known.checkpoint for known in records(target)] == [newer.id]
    assert set(target.names("objects")) == set(records(target)[0].objects())


# In a directory


@pytest.fixture
def target(tmp_path):
    return Target(str(tmp_path / "backups"))  # a directory needs no closing


def test_what_came_back_otherwise_than_it_was_sent_is_no_backup(realm, ledger, saved, target, monkeypatch):
    manifest, send = saved(1), Target.send

    def lose_a_bit(self, source, name):
        send(self, source, name)
        path = realm.root.parent / "backups" / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(Target, "send", lose_a_bit)
    with pytest.raises(RealmError, match="other bytes"):
        back_up(realm, ledger, manifest.id, target)
    assert records(target) == [] and target.names("objects") == []


def test_a_backup_that_was_cut_off_is_none_and_the_next_one_goes_on(realm, ledger, saved, target, monkeypatch):
    manifest, send = saved(1), Target.send
    names = []

    def fail_at_the_third(self, source, name):
        names.append(name)
        if len(names) == 3:
            (realm.root.parent / "backups" / os.path.dirname(name)).mkdir(parents=True, exist_ok=True)
            (realm.root.parent / "backups" / name).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        send(self, source, name)

    monkeypatch.setattr(Target, "send", fail_at_the_third)
    with pytest.raises(OSError, match="No space"):
        back_up(realm, ledger, manifest.id, target)
    assert records(target) == []
    monkeypatch.setattr(Target, "send", send)
    made, sent = back_up(realm, ledger, manifest.id, target)
    first = [entry["bytes"] for entry in made.files.values()]
    assert sent == sum(made.objects().values()) - sum(first[:2]), "the two that were there stayed"


def test_a_damaged_backup_restores_nothing(realm, ledger, saved, target, tmp_path):
    manifest = saved(1)
    made, _ = back_up(realm, ledger, manifest.id, target)
    sha = manifest.files["model.safetensors"]["sha256"]
    (tmp_path / "backups" / "objects" / sha[:2] / sha).write_bytes(b"x" * 20000)
    (realm.vault / manifest.id / "tokenizer.json").unlink()
    with pytest.raises(RealmError, match="damaged"):
        restore(realm, ledger, made, target)
    assert not list(realm.vault.glob(".building*")) and (realm.vault / manifest.id / MODEL).exists()


MODEL = "model.safetensors"


def test_restoring_mends_what_is_broken_and_leaves_what_is_whole(realm, ledger, saved, target):
    manifest = saved(1)
    made, _ = back_up(realm, ledger, manifest.id, target)
    untouched = (realm.vault / manifest.id / MODEL).stat().st_mtime_ns
    restore(realm, ledger, made, target)
    assert (realm.vault / manifest.id / MODEL).stat().st_mtime_ns == untouched
    (realm.vault / manifest.id / MODEL).write_bytes(b"broken")
    restore(realm, ledger, made, target)
    assert verify(realm.vault / manifest.id) == manifest
    assert (realm.trash / manifest.id / MODEL).read_bytes() == b"broken"


def test_the_ledger_is_copied_whole_while_others_write_to_it(realm, saved, target, tmp_path):
    manifest, stop = saved(1), threading.Event()

    def write():
        ledger = Ledger(realm.ledger)
        while not stop.is_set():
            ledger.event("test", "noise", "x" * 500)
            time.sleep(0.002)
        ledger.close()

    writer = threading.Thread(target=write)
    writer.start()
    own = Ledger(realm.ledger)
    made, _ = back_up(realm, own, manifest.id, target)
    stop.set(), writer.join(), own.close()
    backup_manager.fetch(target, made.ledger, tmp_path / "copy.db")
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert copy.execute("SELECT COUNT(*) FROM checkpoints").fetchone() == (1,)
    copy.close()


def test_the_newest_stay_and_one_of_each_day_and_week():
    policy = Backup(keep=2, keep_daily=3, keep_weekly=3)
    hours = [100 * DAY + hour * 3600.0 for hour in range(0, 24 * 20, 6)]
    stay = kept(hours, policy)
    days = {int(moment // DAY) for moment in sorted(stay)}
    assert set(hours[-2:]) <= stay and {119, 118, 117} <= days and len(stay) == 5
    assert max(moment for moment in hours if moment // DAY == 118) in stay


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("ftp://host/x", "not known"),
        ("s3://key:secret@bucket/x", "no password"),
        ("sftp:///path", "names no host"),
    ],
)
def test_an_address_that_cannot_be_is_refused(wrong, told):
    with pytest.raises(UserError, match=told):
        Target(wrong)


def test_a_missing_library_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(UserError, match=r"need s3fs: .*requirements-backup.txt"):
        Target("s3://bucket/x")


def test_a_host_that_ssh_does_not_know_is_not_trusted(tmp_path, monkeypatch):
    with sftp(tmp_path, monkeypatch) as url:
        (tmp_path / "home" / ".ssh" / "known_hosts").write_text("")
        with pytest.raises(RealmError, match="known_hosts"):
            Target(url)


# By itself


def test_a_backup_is_due_by_the_hour_if_there_is_something_new_and_sooner_after_a_failure(realm, ledger, saved):
    policy = Backup(to="/elsewhere", every_hours=2)
    assert not backup_schedule.due(realm, ledger, policy, 0.0), "there is no checkpoint yet"
    manifest = saved(1)
    assert backup_schedule.due(realm, ledger, policy, 0.0)
    assert not backup_schedule.due(realm, ledger, Backup(), 0.0)
    ledger.event("vault", backup_schedule.MADE, "", checkpoint=manifest.id, to="/elsewhere")
    now = ledger.events()[-1]["time"]
    assert not backup_schedule.due(realm, ledger, policy, now + 9000), "nothing new"
    saved(2)
    assert not backup_schedule.due(realm, ledger, policy, now + 7000) and backup_schedule.due(
        realm, ledger, policy, now + 7300
    )
    backup_schedule.fail(ledger, "/elsewhere", OSError("gone"))
    now = ledger.events()[-1]["time"]
    assert not backup_schedule.due(realm, ledger, policy, now + 800)
    assert backup_schedule.due(realm, ledger, policy, now + 1000)


def test_the_daemon_has_a_process_do_it_and_a_failure_is_an_alert_until_it_works(realm, ledger, saved, tmp_path):
    manifest, place = saved(1), tmp_path / "backups"
    place.write_text("a file, not a folder")
    write_json(realm.config, {"backup": {"to": str(place)}})
    backups = Backups(realm, Config(backup=Backup(to=str(place))), ledger)
    backups.turn()
    backups._child.wait()
    assert [alert["code"] for alert in alerts(ledger)] == ["backup_failed"]
    backups.turn()
    assert backups._child is None, "it is not tried again at once"
    place.unlink()
    ledger.all("UPDATE events SET time = time - 3600")
    backups.turn()
    backups._child.wait()
    assert alerts(ledger) == [] and [known.checkpoint for known in records(Target(str(place)))] == [manifest.id]
    backups.close()
