"""A whole realm, with its real processes: from a dropped file to a promoted checkpoint, through kills and wishes."""

import json
import os
import random
import signal
import sqlite3
import time
from itertools import pairwise
from pathlib import Path

import pytest
from processes import cli, free_port, in_state, status, until

from core.paths import RealmPaths

pytestmark = pytest.mark.alone


def write_rows(path: Path, count: int, seed: int = 1) -> Path:
    """Sums in words, easy enough that a short battle shows a falling loss."""
    chance = random.Random(seed)
    with open(path, "w") as file:
        for _ in range(count):
            first, second = chance.randrange(1000), chance.randrange(1000)
            file.write(
                json.dumps({"question": f"What is {first} plus {second}?", "answer": f"It is {first + second}."}) + "\n"
            )
    return path


@pytest.fixture(scope="module")
def realm(tmp_path_factory) -> RealmPaths:
    root = tmp_path_factory.mktemp("realm")
    (root / "config.json").write_text(
        json.dumps(
            {
                "idle_generation": {"enabled": False},
                "save_steps": 20,
                "eval_steps": 20,
                "batch_size": 16,
                "exam_share": 0.0,  # an exam is work of its battle, and no wait between two
            }
        )
    )
    cli(root, "start-all", "--port", str(free_port()))
    yield RealmPaths(root)
    cli(root, "stop-all")


def drop(paths: RealmPaths, source: Path) -> None:
    hidden = paths.inbox / f".{source.name}"
    hidden.write_bytes(source.read_bytes())
    os.rename(hidden, paths.inbox / source.name)


def steps_of(paths: RealmPaths, quest: int) -> list[sqlite3.Row]:
    connection = sqlite3.connect(f"file:{paths.metrics}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT step, time, loss FROM steps WHERE quest=? ORDER BY step", (quest,)).fetchall()
    finally:
        connection.close()


def trainer_pid(root: Path) -> int | None:
    return next(service["pid"] for service in status(root)["services"] if service["name"] == "trainer")


def quest_id(path: Path) -> int:
    return int(path.stem.rpartition("-q")[2])


def test_dropped_files_are_trained_promoted_and_the_next_one_starts_at_once(realm, tmp_path):
    names = ("first", "second", "third", "fourth")
    for seed, name in enumerate(names):
        drop(realm, write_rows(tmp_path / f"{name}.jsonl", 400 if name in ("first", "fourth") else 120, seed))
    until(lambda: all(in_state(realm, "recently_completed", name) for name in names))
    quests = [quest_id(in_state(realm, "recently_completed", name)[0]) for name in names]
    battles = sorted(steps_of(realm, quest) for quest in quests)
    turns = [(one[-1], two[0]) for one, two in pairwise(battles)]
    assert all(two[0] == one[0] + 1 for one, two in turns), "the global step goes on from quest to quest"
    gaps = [two[1] - one[1] for one, two in turns]
    assert min(gaps) <= 0.5, f"seconds from the last step of a quest to the end of the next one's first: {gaps}"
    assert battles[-1][-1][2] < battles[0][0][2] - 1.0
    listed = json.loads(cli(realm.root, "vault", "list", "--json").stdout)
    newest = max(listed, key=lambda checkpoint: checkpoint["step"])
    assert newest["state"] == "promoted" and newest["verified"]
    assert realm.current_model.readlink().name == newest["id"]


def test_the_current_model_loads_outside_the_realm_and_its_held_out_loss_is_the_ledgers(realm, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = in_state(realm, "recently_completed", "fourth")[0]
    shown = json.loads(cli(realm.root, "quest", "show", str(quest_id(done)), "--json").stdout)
    lines = done.read_text().splitlines()
    model = AutoModelForCausalLM.from_pretrained(realm.current_model)
    tokenizer = AutoTokenizer.from_pretrained(realm.current_model)
    total, labels = 0.0, 0
    for number in shown["held_out"]:
        row = json.loads(lines[number - 1])
        messages = [{"role": "user", "content": row["question"]}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        answer = tokenizer.encode(row["answer"] + "<|im_end|>", add_special_tokens=False)
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="sum").item()
        labels += len(answer)
    checkpoint = json.loads(cli(realm.root, "vault", "show", realm.current_model.readlink().name, "--json").stdout)
    assert len(shown["held_out"]) == 20
    assert total / labels == pytest.approx(checkpoint["validation_loss"], abs=1e-4)


def test_a_trainer_killed_mid_battle_goes_on_within_15_seconds_and_trains_nothing_twice(realm, tmp_path):
    drop(realm, write_rows(tmp_path / "long.jsonl", 1200, 3))
    until(lambda: (status(realm.root)["battle"] or {}).get("step", 0) >= 45)
    quest = quest_id(in_state(realm, "processing", "long")[0])
    os.kill(trainer_pid(realm.root), signal.SIGKILL)
    killed = time.time()
    until(lambda: [step for step in steps_of(realm, quest) if step[1] > killed], 30)
    first_again = next(step for step in steps_of(realm, quest) if step[1] > killed)
    assert first_again[1] - killed <= 15.0
    until(lambda: in_state(realm, "recently_completed", "long"), 120)
    steps = steps_of(realm, quest)
    assert [step[0] for step in steps] == list(range(steps[0][0], steps[0][0] + 72)), "1,140 rows by 16, each step once"


def test_pause_keeps_the_place_and_resume_goes_on(realm, tmp_path):
    drop(realm, write_rows(tmp_path / "paused.jsonl", 1300, 4))
    until(lambda: (status(realm.root)["battle"] or {}).get("step", 0) >= 5)
    cli(realm.root, "pause")
    until(lambda: json.loads(realm.status.read_text())["state"] == "paused")
    held = status(realm.root)["battle"]["step"]
    time.sleep(1.0)
    assert status(realm.root)["battle"]["step"] == held
    cli(realm.root, "resume")
    until(lambda: (status(realm.root)["battle"] or {}).get("step", 0) > held)


def test_skip_sends_the_battle_to_low_and_its_place_is_kept(realm, tmp_path):
    quest = quest_id(in_state(realm, "processing", "paused")[0])
    drop(realm, write_rows(tmp_path / "urgent.jsonl", 200, 5))
    until(lambda: in_state(realm, "normal", "urgent"))
    cli(realm.root, "skip")
    until(lambda: in_state(realm, "recently_completed", "urgent"))
    until(lambda: in_state(realm, "recently_completed", "paused"), 120)
    assert len(steps_of(realm, quest)) == 78, "1,236 rows by 16: no step was lost, none done again"


def test_stop_saves_a_verified_checkpoint_and_leaves_no_process(realm, tmp_path):
    drop(realm, write_rows(tmp_path / "stopped.jsonl", 700, 6))
    until(lambda: (status(realm.root)["battle"] or {}).get("step", 0) >= 5)
    pids = [service["pid"] for service in status(realm.root)["services"] if service["pid"]]
    cli(realm.root, "stop-all")
    until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], 3)
    assert in_state(realm, "processing", "stopped")
    assert cli(realm.root, "vault", "verify").returncode == 0
    cli(realm.root, "start-all", "--port", str(free_port()))
    until(lambda: in_state(realm, "recently_completed", "stopped"), 120)
    assert len(steps_of(realm, quest_id(in_state(realm, "recently_completed", "stopped")[0]))) == 42


def test_a_typo_in_config_is_told_and_waited_for_and_every_service_has_its_log(realm):
    good = realm.config.read_text()
    realm.config.write_text('{"batch_sise": 1}')
    for name in ("trainer", "daemon"):
        pid = next(service["pid"] for service in status(realm.root)["services"] if service["name"] == name)
        os.kill(pid, signal.SIGKILL)
    until(lambda: {alert["code"] for alert in status(realm.root)["alerts"]} >= {"config_wrong", "hero_unclear"}, 30)
    assert "batch_size" in next(
        alert["text"] for alert in status(realm.root)["alerts"] if alert["code"] == "config_wrong"
    )
    realm.config.write_text(good)
    until(
        lambda: (
            not [alert for alert in status(realm.root)["alerts"] if alert["code"] in ("config_wrong", "hero_unclear")]
        ),
        40,
    )
    assert {service["name"]: service["state"] for service in status(realm.root)["services"]}["trainer"] == "running"
    day = time.strftime("%Y%m%d")
    assert {f"{name}_{day}.log" for name in ("daemon", "trainer", "watchdog")} <= {
        path.name for path in realm.logs.iterdir()
    }


def test_a_skip_while_no_trainer_runs_is_carried_out_when_one_starts(realm, tmp_path):
    drop(realm, write_rows(tmp_path / "left.jsonl", 2000, 8))
    until(lambda: (status(realm.root)["battle"] or {}).get("step", 0) >= 3)
    cli(realm.root, "stop-all")
    drop(realm, write_rows(tmp_path / "quick.jsonl", 200, 9))
    cli(realm.root, "skip")
    cli(realm.root, "start-all", "--port", str(free_port()))
    until(lambda: in_state(realm, "recently_completed", "quick") or in_state(realm, "processing", "quick"), 60)
    assert not in_state(realm, "recently_completed", "left")
