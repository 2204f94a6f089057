"""The command line: exit codes, messages that say what to do, `--root` and `--json` everywhere, no trace ever."""

import io
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from command_line import asking, calling
from model_folders import write_model

from core import control
from core.checkpoints import Manifest, commit, set_current, set_tip
from core.config import Config
from core.errors import UserError
from core.json_array import elements
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import CHECKOUT, RealmPaths
from core.training_queue import TrainingQueue
from safety.crash_detector import Evidence, diagnose
from training.cli import build_parser, main
from training.commands import FAMILIES

CONVERSATION = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello, you"}]}


@pytest.fixture
def paths(tmp_path, monkeypatch) -> RealmPaths:
    monkeypatch.delenv("REALM_ROOT", raising=False)
    made = RealmPaths(tmp_path / "realm")
    made.make()
    return made


@pytest.fixture
def call(paths, capsys):
    """Runs a verb in the realm and gives exit code, output and errors."""
    return calling(capsys, "--root", str(paths.root))


@pytest.fixture
def ask(call):
    """The JSON that a verb answers with."""
    return asking(call)


def accepted(paths: RealmPaths, stem: str, priority: str = "normal") -> int:
    """A quest as the daemon leaves it in the queue."""
    ledger = Ledger(paths.ledger)
    now = time.time()
    facts = {"stem": stem, "origin": "user", "state": "arriving", "priority": priority}
    number = ledger.add("quests", **facts, created=now, updated=now)
    claimed = paths.claims / f"{stem}-q{number:06d}.jsonl"
    claimed.write_bytes(orjson.dumps(CONVERSATION) + b"\n")
    settings = {"school": "scribe", "epochs": 2, "seed": 3, "columns": {}}
    card = {"settings": settings, "sha256": "ab", "rows": 1}
    TrainingQueue(paths, ledger).accept(claimed, priority, card, {"rows": 1})
    return number


def dropped(paths: RealmPaths, priority: str = "normal") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.inbox_for(priority).iterdir() if path.is_file()}


# Usage


def test_status_answers_within_half_a_second(paths):
    command = [sys.executable, "-m", "training", "status", "--json", "--root", str(paths.root)]
    times, waits = (
        [],
        [],
    )  # of the processor: what else the machine does is not to be measured; and what is slept beside it
    for _ in range(5):
        began, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        status = json.loads(subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True).stdout)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
        waits.append(time.monotonic() - clock - times[-1])
    assert min(times) < 0.5 and min(waits) < 0.5
    assert {"hero", "battle", "queue", "services", "disk", "gpus", "alerts"} <= set(status)
    assert {service["name"]: service["state"] for service in status["services"]} == {
        "watchdog": "stopped",
        "daemon": "stopped",
        "trainer": "stopped",
        "tavern": "stopped",
        "oracle": "off",
    }


def test_every_family_registers_just_the_verbs_it_is_named_for():
    everything = [verb for verbs in FAMILIES.values() for verb in verbs]
    for verbs in FAMILIES.values():
        registered = re.findall(r"^    ([a-z-]+)", build_parser(verbs[0]).format_help(), re.MULTILINE)
        assert registered == list(verbs)
    assert re.findall(r"^    ([a-z-]+)", build_parser().format_help(), re.MULTILINE) == everything


def test_root_is_taken_before_and_after_the_verb_and_from_the_environment(paths, capsys, monkeypatch):
    other = str(paths.root)
    for place in range(3):
        words = ["quest", "list", "--json"]
        assert main([*words[:place], "--root", other, *words[place:]]) == 0
    monkeypatch.setenv("REALM_ROOT", other)
    assert main(["status", "--json"]) == 0
    monkeypatch.setenv("REALM_ROOT", str(paths.root / "nowhere"))
    assert main(["status"]) == 1
    assert "there is no realm in" in capsys.readouterr().err


@pytest.mark.parametrize("words, hint", [
    (["statsu"], "did you mean 'status'?"),
    (["config", "shwo"], "did you mean 'show'?"),
    (["quest", "add"], "required: FILE"),
    (["quest", "show", "seven"], "'seven' is no quest's number"),
    (["status", "--jsno"], "unrecognized arguments: --jsno"),
    (["start-all", "--port", "99999"], "invalid port value"),
    ([], "required: VERB"),
])  # fmt: skip
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(call, words, hint):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert hint in err and len(err.splitlines()) == 2


def test_an_error_of_ours_is_one_line_and_its_trace_is_in_the_log(paths):
    paths.ledger.write_bytes(b"this is no database" * 100)
    command = [sys.executable, "-m", "training", "quest", "list", "--root", str(paths.root)]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("internal error: DatabaseError: file is not a database (trace: ")
    log = Path(line.rpartition("trace: ")[2].rstrip(")"))
    assert "Traceback" in json.loads(log.read_text())["trace"]


def test_a_reader_that_leaves_is_no_error(paths):
    command = f"'{sys.executable}' -m training skill sample BIN -n 2000 --root '{paths.root}' | head -1"
    result = subprocess.run(["bash", "-c", command], cwd=CHECKOUT, capture_output=True, text=True)
    assert result.stderr == "" and result.stdout


# Realm


def test_init_makes_a_realm_and_leaves_its_config_alone_the_next_time(tmp_path, capsys):
    root = tmp_path / "new"
    assert main(["init", "--root", str(root), "--name", "ANA", "--port", "9000"]) == 0
    config = json.loads((root / "config.json").read_text())
    assert (config["hero"]["name"], config["tavern"]["port"]) == ("ANA", 9000)
    assert main(["init", "--root", str(root), "--name", "BOB"]) == 0
    assert "stays as it is" in capsys.readouterr().out
    assert json.loads((root / "config.json").read_text()) == config
    assert main(["init", "--root", str(tmp_path / "other"), "--name", "no spaces"]) == 1
    assert not (tmp_path / "other").exists()


def test_pause_resume_and_skip_write_wishes_and_say_what_will_happen(paths, call, ask):
    code, out, _ = call("pause")
    assert code == 0 and "No trainer runs now" in out
    assert control.is_paused(Ledger(paths.ledger))
    assert "Paused already" in call("pause")[1]
    assert ask("resume")["wish"] == 2
    assert "Not paused" in call("resume")[1]
    code, _, err = call("skip")
    assert code == 1 and "no quest is in training" in err
    accepted(paths, "songs")
    TrainingQueue(paths, Ledger(paths.ledger)).claim()
    assert ask("skip")["verb"] == "skip"
    assert [wish["verb"] for wish in control.waiting(Ledger(paths.ledger))] == ["pause", "resume", "skip"]


def test_stop_all_is_content_when_nothing_runs(ask):
    assert ask("stop-all") == {"stopped": False, "checkpoint": None}


def test_start_all_names_who_has_the_port_and_the_next_free_one(call):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _, err = call("start-all", "--port", port)
    assert code == 1
    assert f"port {port} is taken by" in err and f"(pid {os.getpid()})" in err and "is free: `start-all --port" in err


def test_start_all_does_not_start_on_a_wrong_config(paths, call):
    paths.config.write_text('{"batch_sze": 4}')
    code, _, err = call("start-all")
    assert code == 1 and "did you mean 'batch_size'?" in err


# Config


def test_config_show_marks_what_differs_from_the_default(paths, call, ask):
    paths.config.write_text('{"batch_size": 4}')
    lines = call("config", "show")[1].splitlines()
    assert f"* batch_size = 4  (default {Config().batch_size})" in lines
    assert "  tavern.port = 8888" in lines
    assert ask("config", "show")["batch_size"] == 4


def test_config_explain_tells_default_and_bounds_and_offers_the_nearest_name(call, ask):
    about = ask("config", "explain", "tavern.port")
    assert (about["default"], about["allowed"]) == (8888, "integer ≥ 1 ≤ 65535")
    assert len(ask("config", "explain")) > 20
    code, _, err = call("config", "explain", "tavern.prot")
    assert code == 1 and "did you mean 'tavern.port'?" in err


def test_config_set_takes_json_or_text_and_refuses_what_is_not_allowed(paths, call, ask):
    assert ask("config", "set", "tavern.port", "9001")["value"] == 9001
    assert ask("config", "set", "hero.name", "ANA")["value"] == "ANA"
    assert ask("config", "set", "idle_generation.enabled", "false")["value"] is False
    before = paths.config.read_bytes()
    wrong = [
        ("tavern.port", "0", "greater than or equal to 1"),
        ("batch_size", "many", "valid integer"),
        ("hero.nme", "X", "did you mean 'hero.name'?"),
    ]
    for field, value, reason in wrong:
        code, _, err = call("config", "set", field, value)
        assert code == 1 and reason in err
    assert paths.config.read_bytes() == before


def test_config_set_can_mend_a_wrong_value_but_not_broken_json(paths, call, ask):
    paths.config.write_text('{"batch_size": "x"}')
    assert ask("config", "set", "batch_size", "4")["value"] == 4
    paths.config.write_text('{"tavern": 7}')
    assert "tavern = 7" in call("config", "set", "tavern.port", "9001")[2]
    paths.config.write_text("{broken")
    code, _, err = call("config", "set", "batch_size", "4")
    assert code == 1 and "config.json:1:2: not JSON" in err


# Quests


def test_quest_add_copies_lines_and_takes_arrays_apart(paths, ask, tmp_path):
    rows = [{"instruction": "Grüße", "output": "a\nb"}, {"instruction": "n", "output": str(2**70)}]
    array, lines = tmp_path / "songs.json", tmp_path / "poems.jsonl"
    array.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows, indent=1, ensure_ascii=False).encode())
    lines.write_bytes(b'{"text": "as it is" }\r\n\n{broken\n')
    flags = ["--priority", "high", "--epochs", "2", "--seed", "0", "--columns", "ask=prompt,reply=response"]
    added = ask("quest", "add", array, lines, *flags)
    assert [one["stem"] for one in added] == ["songs", "poems"]
    files = dropped(paths, "high")
    assert [json.loads(line) for line in files["songs.jsonl"].splitlines()] == rows
    assert files["poems.jsonl"] == lines.read_bytes()
    sidecar = json.loads(files["songs.quest.json"])
    assert sidecar == {"priority": "high", "epochs": 2, "seed": 0, "columns": {"ask": "prompt", "reply": "response"}}
    assert array.exists() and lines.exists()


@pytest.mark.parametrize("name, content, flags, reason", [
    ("a.json", b'[{"a": 1}, {"a": 2]', [], "a.json:1: is not JSON"),
    ("a.json", b'\n\n[{"a": 1},\n {"a": 2} {"a": 3}]', [], "a.json:4: the array has no comma or ] here"),
    ("a.json", b"7", [], "a.json:1: is not a JSON array of rows"),
    ("a.json", b'["\xff"]', [], "is not UTF-8"),
    ("a.csv", b"a,b", [], "not a .jsonl file"),
    ("a.jsonl", b"{}", ["--epochs", "0"], "epochs = 0"),
    ("a.jsonl", b"{}", ["--school", "hogwarts"], "school = 'hogwarts'"),
])  # fmt: skip
def test_quest_add_refuses_with_a_reason_and_drops_nothing(paths, call, tmp_path, name, content, flags, reason):
    (tmp_path / name).write_bytes(content)
    code, _, err = call("quest", "add", tmp_path / name, *flags)
    assert code == 1 and reason in err
    assert dropped(paths) == {}
    code, _, err = call("quest", "add", tmp_path / "missing.jsonl")
    assert code == 1 and "does not exist" in err


def test_an_array_is_read_in_pieces_whatever_the_edges(monkeypatch):
    monkeypatch.setattr("core.json_array._CHUNK", 3)
    values = [{"a": "é🔥"}, 12345, -1.5e10, "x, ]", [], None, {"b": [1, {"c": "\\"}]}]
    for text in (json.dumps(values, ensure_ascii=False), json.dumps(values, indent=3)):
        assert list(elements(io.BytesIO(text.encode()), "f")) == values
    assert list(elements(io.BytesIO(b" [ ] "), "f")) == []
    with pytest.raises(UserError, match="something follows"):
        list(elements(io.BytesIO(b"[1] 2"), "f"))


def test_an_endless_mistake_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr("core.json_array._CHUNK", 16)
    monkeypatch.setattr("core.json_array._LARGEST", 100)
    file = io.BytesIO(b"[{bad" + b"x" * 100_000)
    with pytest.raises(UserError, match="f:1: is not JSON"):
        list(elements(file, "f"))
    assert file.tell() < 1000


def test_quests_are_listed_shown_and_cancelled(paths, call, ask):
    first, second = accepted(paths, "songs"), accepted(paths, "poems", "low")
    assert [quest["stem"] for quest in ask("quest", "list")] == ["songs", "poems"]
    assert [quest["id"] for quest in ask("quest", "list", "--state", "low")] == [second]
    assert "did you mean 'failed'?" in call("quest", "list", "--state", "faild")[2]
    about = ask("quest", "show", f"songs-q{first:06d}")
    assert about["card"]["rows"] == 1 and about["report"]["rows"] == 1 and about["battles"] == []
    assert call("quest", "show", "99")[0] == 1
    ask("quest", "cancel", first)
    assert ask("quest", "show", first)["reason"] == "cancelled"
    assert list(paths.queued("failed").glob("songs*.jsonl"))
    assert "can be cancelled" in call("quest", "cancel", first)[2]


def test_a_waiting_quest_is_moved(paths, call, ask):
    first, second, third = accepted(paths, "songs"), accepted(paths, "poems"), accepted(paths, "rhymes", "low")
    assert ask("quest", "move", second, "--before", first)["place"] == 0
    assert "waits in normal, behind 2 others" in call("quest", "move", third, "--priority", "normal", "--to", "last")[1]
    queue = TrainingQueue(paths, Ledger(paths.ledger))
    assert [quest.id for quest in queue.in_line("normal")] == [second, first, third]
    assert "say where to" in call("quest", "move", first)[2] and call("quest", "move", first, "--to", "moon")[0] == 2
    assert call("quest", "move", first, "--before", second, "--to", "up")[0] == 2


def test_a_failed_quest_waits_again_and_a_finished_one_needs_force(paths, call, ask):
    failed, finished = accepted(paths, "songs", "high"), accepted(paths, "poems")
    queue = TrainingQueue(paths, Ledger(paths.ledger))
    queue.give_up(queue.find(failed), "three failures")
    queue.finish(queue.find(finished))
    assert "waits again in high" in call("quest", "retry", failed)[1]
    assert queue.find(failed).state == "high"
    assert "--force" in call("quest", "retry", finished)[2]
    ask("quest", "retry", finished, "--force")
    files = dropped(paths)
    frozen = {"school": "scribe", "epochs": 2, "seed": 3, "columns": {}}
    assert json.loads(files["poems.quest.json"]) == {**frozen, "force": True}
    assert json.loads(files["poems.jsonl"]) == CONVERSATION
    assert queue.find(finished).state == "recently_completed"


def test_a_rejected_duplicate_comes_back_with_force_and_keeps_its_sidecar(paths, call, ask):
    ledger = Ledger(paths.ledger)
    facts = {"stem": "twin", "origin": "user", "state": "arriving", "priority": "low"}
    number = ledger.add("quests", **facts, created=1.0, updated=1.0)
    claimed = paths.claims / f"twin-q{number:06d}.jsonl"
    claimed.write_bytes(b'{"text": "again"}\n')
    claimed.with_suffix(".quest.json").write_text('{"epochs": 3}')
    TrainingQueue(paths, ledger).reject(claimed, {"reason": "duplicate", "duplicate_of": 1})
    assert "is a duplicate of quest 1" in call("quest", "retry", number)[2]
    ask("quest", "retry", number, "--force")
    assert json.loads(dropped(paths, "low")["twin.quest.json"]) == {"epochs": 3, "force": True}
    assert list(paths.queued("rejected").iterdir()) == []


def test_a_file_is_judged_and_previewed_without_the_realm_taking_it(paths, call, ask, tmp_path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.json"
    good.write_bytes(orjson.dumps(CONVERSATION) + b"\n")
    bad.write_text(json.dumps([{"messages": []}, CONVERSATION]))
    assert ask("quest", "validate", good)["verdict"] == "accepted"
    code, out, _ = call("quest", "validate", bad)
    assert code == 1 and "line 1" in out
    shown = ask("quest", "preview", good)["rows"][0]["sequences"][0]
    assert next(run["text"] for run in shown["runs"] if run["trained"]).startswith("hello, you")
    assert "⟦hello, you" in call("quest", "preview", good)[1]
    assert dropped(paths) == {}


# Vault, logs, schooling, doctor


def write_weights(folder):
    (folder / "weights").write_bytes(b"w" * 10)


@pytest.fixture
def vault(paths) -> list[Manifest]:
    made = [commit(paths, Manifest("DIO", "first", step), write_weights) for step in (0, 5)]
    set_current(paths, made[0].id)
    set_tip(paths, made[1].id)
    return made


def test_the_vault_is_listed_and_a_broken_checkpoint_is_named(paths, vault, call, ask):
    newest, oldest = ask("vault", "list")
    assert (newest["id"], newest["state"], newest["verified"], newest["bytes"]) == (vault[1].id, "saved", True, 10)
    assert (oldest["state"], oldest["champion"], oldest["pinned"], oldest["quest"]) == ("promoted", False, False, None)
    assert ask("vault", "show", "tip")["manifest"]["step"] == 5
    assert all(one["verified"] for one in ask("vault", "verify"))
    (paths.vault / vault[1].id / "weights").write_bytes(b"x" * 10)
    assert [one["verified"] for one in ask("vault", "list")] == [False, True]
    code, out, _ = call("vault", "verify")
    assert code == 1 and "weights was altered" in out
    assert call("vault", "verify", vault[0].id)[0] == 0
    assert "`vault list` shows them" in call("vault", "show", "nobody")[2]


def findings(ask_or_call, *words: str) -> dict[str, str]:
    return {finding["code"]: finding["level"] for finding in json.loads(ask_or_call("doctor", *words, "--json")[1])}


def test_doctor_names_what_is_wrong_and_mends_what_is_safe(paths, vault, call):
    paths.queued("low").rmdir()
    (paths.vault / ".building-1234").mkdir()
    (paths.vault / vault[1].id / "weights").write_bytes(b"x" * 10)
    (paths.queued("high") / "gone-q000001.report.json").write_text("{}")
    paths.config.write_text('{"tavern": {"port": "x"}}')
    sick = findings(call)
    assert {sick[code] for code in ("config", "pointers")} == {"error"}
    assert {sick[code] for code in ("folders", "half_built", "companions")} == {"warning"}
    assert call("doctor")[0] == 1
    paths.config.unlink()
    mended = findings(call, "--fix", "--deep")
    assert mended["folders"] == "ok" and "half_built" not in mended
    set_tip(paths, vault[0].id)
    assert findings(call)["pointers"] == "ok"
    assert findings(call, "--deep")["pointers"] == "error"


def test_crashes_are_told_with_class_advice_and_what_followed(paths, call):
    assert call("logs", "--crashes")[1] == "No service has ended unasked.\n"
    known = {"trainer": Evidence(-9, "last\x1b words", oom_killed=True, phase="step", step=1234), "daemon": Evidence(3)}
    for name, evidence in known.items():
        facts = {key: value for key, value in vars(diagnose(evidence)).items() if key != "time"}
        Ledger(paths.ledger).event("watchdog", "crash", "text", "warning", name=name, **facts)
    text = call("logs", "trainer", "--crashes")[1]
    assert "trainer: oom_kill, SIGKILL in its step after step 1,234" in text and "Then: halve passes." in text
    assert "plan` shows" in text and "last\\u001b words" in text and "daemon" not in text
    told = json.loads(call("logs", "--crashes", "--json")[1])
    assert [(each["name"], each["kind"], each["action"]) for each in told] == [
        ("trainer", "oom_kill", "halve_passes"),
        ("daemon", "bug", "restart"),
    ]


def test_logs_skills_and_schools_can_be_asked_for(paths, call, ask):
    (paths.logs / "daemon_20300517.log").write_text('{"time": 1, "level": "info", "message": "hello\\u001b"}\n')
    assert "daemon   info     hello\\u001b" in call("logs")[1]
    assert json.loads(call("logs", "daemon", "--json")[1])["message"] == "hello\x1b"
    assert "BIN" in [one["name"] for one in ask("skill", "list")]
    assert len(ask("skill", "sample", "bin", "-n", "3")) == 3
    assert ask("school", "list")[0]["name"] == "scribe"


def test_heroes_are_listed_and_switched(paths, call, ask):
    base = paths.models / "Tiny-0.1B"
    write_model(base)
    (base / "tokenizer.json").rename(base / "hidden")
    assert "no tokenizer.json" in call("hero", "switch", "Tiny-0.1B")[2]
    (base / "hidden").rename(base / "tokenizer.json")
    assert ask("hero", "list")[0]["problem"] is None
    assert "did you mean 'Tiny-0.1B'?" in call("hero", "switch", "Tiny-0.1")[2]
    assert ask("hero", "switch", "Tiny-0.1B")["name"] == "Tiny_0_1B"
    assert ask("config", "show")["hero"] == {"name": "Tiny_0_1B", "base_model": "Tiny-0.1B"}
    assert ask("hero", "show")["name"] == "Tiny_0_1B"


def test_a_second_hero_is_not_hatched_over_the_first(vault, call):
    code, _, err = call("hero", "hatch")
    assert code == 1 and "exists already" in err


def test_fetching_without_a_network_says_what_to_do(paths, call, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, _, err = call("hero", "fetch", "someone/something")
    assert code == 1 and "could not be fetched" in err and str(paths.models / "something") in err
    assert "must be OWNER/NAME" in call("hero", "fetch", "something")[2]


@pytest.mark.parametrize(
    "make",
    [lambda path, secret: path.symlink_to(secret), lambda path, _: os.mkfifo(path), lambda path, _: path.mkdir()],
)
def test_a_rejected_link_pipe_or_folder_never_reaches_the_inbox_by_retry(paths, call, tmp_path, make):
    secret = tmp_path / "secret"
    secret.write_text('{"text": "not for the hero"}\n')
    ledger = Ledger(paths.ledger)
    number = ledger.add(
        "quests", stem="odd", origin="user", state="arriving", priority="normal", created=1.0, updated=1.0
    )
    claimed = paths.claims / f"odd-q{number:06d}.jsonl"
    make(claimed, secret)
    TrainingQueue(paths, ledger).reject(claimed, {"reason": "no regular file"})
    code, _, err = call("quest", "retry", number)
    assert code == 1 and "no regular file" in err
    assert dropped(paths) == {}


def test_a_name_that_would_steer_the_terminal_is_one_line_of_escapes_everywhere(paths, call):
    name = "good\n2099-01-01 daemon error forged\x1b[2J\u202egnp"
    number = accepted(paths, name)
    ledger = Ledger(paths.ledger)
    start_logging(paths, "daemon", stderr=False)
    ledger.event("daemon", "quest_failed", f"{name} failed.", "alert", quest=number)
    ledger.close()
    steering = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
    for words in (
        ("quest", "list"),
        ("quest", "show", number),
        ("status",),
        ("logs", "daemon"),
        ("quest", "cancel", number),
    ):
        _, out, err = call(*words)
        assert "forged\\u001b[2J\\u202e" in out + err, words
        assert not steering.search(out + err), words
        assert not any(line.startswith("2099") for line in (out + err).splitlines())
    (log,) = paths.logs.glob("daemon_*.log")
    assert len(log.read_text().splitlines()) == 2  # the failure, and the cancelling
