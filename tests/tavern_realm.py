"""A realm full of believable data, so that the Tavern can be looked at without a trainer.

`python tests/tavern_realm.py DIR [PORT]` fills DIR and serves it.
"""

import math
import os
import random
import shutil
import sys
import time
from pathlib import Path

import psutil

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from core import checkpoints
from core.durable import read_json, write_json
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.previews import Preview
from core.quest import quest_name
from core.steps import Step, StepRecord

BATTLES = (
    ("starter-binary-level-1", 240),
    ("gsm8k_train", 900),
    ("alpaca_en_demo", 640),
    ("house_style_answers_2026-11", 420),
)
HOSTILE = '<img src=x onerror="alert(1)"> & \'"'


def empty_realm(root: Path) -> RealmPaths:
    paths = RealmPaths(root)
    paths.make()
    return paths


def fill(paths: RealmPaths, watchdog: int | None = None, hostile: str | None = None) -> Ledger:
    """Four battles, the last one running; quests in every folder; checkpoints that verify; living services.

    `watchdog`: the pid to show for it (this process's, if none is given), which `stop` would end.
    """
    ledger, dice = Ledger(paths.ledger), random.Random(7)
    parent, step, now = _hatch(paths, ledger), 0, time.time()
    record = StepRecord(paths.metrics, "DIO")
    began = now - 3 * 3600
    for name, steps in BATTLES:
        last = name == BATTLES[-1][0]
        quest = add_quest(paths, ledger, name, "processing" if last else "recently_completed", began, rows=steps * 16)
        trained = 268 if last else steps
        losses = _battle(record, quest, step, trained, began, dice)
        ledger.add(
            "battles",
            quest=quest,
            hero="DIO",
            school="scribe",
            state="running" if last else "done",
            start_step=step,
            total_steps=steps,
            loss=losses[-1],
            validation_loss_before=losses[0] + 0.04,
            validation_loss=losses[-1] + 0.05,
            tokens=trained * 4100,
            seconds=trained * 0.42,
            xp=0 if last else steps * 0.31,
            started=began,
            finished=None if last else began + trained * 0.42,
        )
        ledger.event("trainer", "battle_began", f"{name}: {steps} steps to go.")
        step += trained
        if "binary" in name:
            ledger.change("quests", quest, skill="BIN")
            for value in (0.25, 0.875):
                ledger.add(
                    "evaluations", hero="DIO", kind="preview", quest=quest, step=step, value=value, created=began
                )
        state, saved = ("saved", now - 120) if last else ("promoted", began + trained * 0.42)
        parent = add_checkpoint(paths, ledger, step, parent, quest, state, losses[-1] + 0.05, saved)
        if not last:
            ledger.event("trainer", "quest_done", f"{name} is trained; {parent} is promoted.")
        began += steps * 0.42 + 900
    checkpoints.set_tip(paths, parent)
    record.previews(step, quest, now - 8, _previews(hostile))
    _waiting_and_trouble(paths, ledger, hostile)
    _snapshot(paths, quest, step, losses)
    services(paths, watchdog)
    return ledger


def _hatch(paths: RealmPaths, ledger: Ledger) -> str:
    ledger.event("trainer", "hero_hatched", "DIO is born from a micro Qwen3.")
    first = add_checkpoint(paths, ledger, 0, None, None, "promoted", None, time.time() - 4 * 3600)
    checkpoints.set_current(paths, first)
    return first


def add_checkpoint(paths, ledger, step, parent, quest, state, loss, created) -> str:
    def build(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(os.urandom(4096) + step.to_bytes(8, "little"))
        (folder / "config.json").write_text('{"model_type": "qwen3"}')
        for file in BUNDLED_TOKENIZER.iterdir():
            shutil.copyfile(file, folder / file.name)

    facts = checkpoints.Manifest("DIO", "c1", step, parent, quest, validation_loss=loss)
    manifest = checkpoints.commit(paths, facts, build)
    ledger.add(
        "checkpoints",
        id=manifest.id,
        hero="DIO",
        campaign="c1",
        step=step,
        parent=parent,
        quest=quest,
        state=state,
        bytes=11_583_488 + step,
        validation_loss=loss,
        created=created,
    )
    if state == "promoted":
        checkpoints.set_current(paths, manifest.id)
    return manifest.id


def add_quest(
    paths, ledger, stem, state, when, rows=None, priority="normal", report=None, reason=None, failures=0
) -> int:
    quest = ledger.add(
        "quests",
        stem=stem,
        origin="user",
        state=state,
        priority=priority,
        sha256=stem,
        bytes=(rows or 7) * 611,
        rows=rows,
        bad_rows=0,
        form="messages" if rows else None,
        school="scribe",
        reason=reason,
        failures=failures,
        created=when - 60,
        updated=when,
    )
    folder = paths.queued(priority if state == "queued" else state)
    name = quest_name(stem, quest)
    (folder / f"{name}.jsonl").write_text('{"text": "a row"}\n')
    write_json(folder / f"{name}.quest.json", {"sha256": stem, "rows": rows, "form": "messages", "school": "scribe"})
    if report is not None:
        write_json(folder / f"{name}.report.json", {"quest": quest, "reason": reason, **report})
    return quest


def _battle(record: StepRecord, quest: int, start: int, steps: int, began: float, dice: random.Random) -> list[float]:
    losses = []
    for done in range(1, steps + 1):
        step = start + done
        trend = 1.35 + 5.2 * math.exp(-step / 260) + 1.1 * math.exp(-done / 90)
        loss = max(0.2, trend * (1 + dice.gauss(0, 0.045)))
        rate = 1e-3 * min(1, done / 40) * (1 - 0.7 * done / 900)
        norm = 0.7 + 2.2 * math.exp(-step / 300) + abs(dice.gauss(0, 0.16))
        seconds = 0.42 * (1 + abs(dice.gauss(0, 0.05)))
        record.add(Step(step, quest, began + done * 0.42, loss, rate, norm, 4100 + dice.randrange(-160, 160), seconds))
        losses.append(trend)
        if step % 50 == 0:
            record.validation(step, quest, began + done * 0.42, trend + 0.06 + dice.gauss(0, 0.015))
    record.flush()
    return losses


def _previews(hostile: str | None) -> list[Preview]:
    refund = "Refunds take five working days. You will get a mail as soon as the money is on its way."
    return [
        Preview("Can I send it back after I have opened it?", "Yes, within 30 days.", "Yes, within 30 days.", 1.0),
        Preview("When do I get my money?", "Refunds take five to ten working days, and we …", refund, 0.0),
        Preview(hostile or "Where is my parcel? " * 12, hostile or "It is …", hostile or "Give me its number.", None),
    ]


def _waiting_and_trouble(paths: RealmPaths, ledger: Ledger, hostile: str | None) -> None:
    now = time.time()
    add_quest(paths, ledger, "urgent_fix_for_dates", "queued", now - 40, 320, "high")
    add_quest(paths, ledger, "glaive_toolcall_en_demo", "queued", now - 300, 300)
    add_quest(paths, ledger, "support_tickets_autumn", "queued", now - 260, 12_480)
    add_quest(paths, ledger, "binary-level-2", "queued", now - 900, 640, "low")
    add_quest(
        paths,
        ledger,
        "chat_export_broken",
        "rejected",
        now - 1500,
        report={"errors": list(_errors())},
        reason="17 of 40 rows are bad (42.5%, allowed are 1.0%); the first, line 3: unknown role 'bot'",
    )
    add_quest(
        paths,
        ledger,
        "gsm8k_train-copy",
        "rejected",
        now - 700,
        report={"errors": []},
        reason="duplicate: the same bytes as gsm8k_train, quest 2",
    )
    add_quest(
        paths,
        ledger,
        "too_long_for_this_hero",
        "failed",
        now - 5000,
        88,
        report={"errors": []},
        reason="FloatingPointError: the loss is not a number at step 12",
        failures=3,
    )
    ledger.event("daemon", "quest_rejected", "chat_export_broken was rejected: 17 of 40 rows are bad.", "warning")
    ledger.event("daemon", "quest_accepted", "support_tickets_autumn: 12,480 rows, messages, normal priority.")
    ledger.event("trainer", "quest_failed", "too_long_for_this_hero failed: the loss is not a number", "alert")
    if hostile:
        _hostile(paths, ledger, hostile)


def _errors():
    for line, where, reason, value, remedy in (
        (3, "messages[1].role", "unknown role 'bot'", "bot", "use system, user, assistant or tool"),
        (8, None, "not JSON: unexpected end of data", '{"messages": [{"role": "user", "content": "Wh', None),
        (21, "messages", "no trained token: there is no assistant turn", None, "add an answer"),
        *((30 + place, "text", "is empty", "", None) for place in range(14)),
    ):
        yield {"line": line, "field": where, "reason": reason, "value": value, "remedy": remedy}


def _hostile(paths: RealmPaths, ledger: Ledger, text: str) -> None:
    """The same text wherever somebody else may have written one."""
    now = time.time()
    error = {"line": 1, "field": text, "reason": text, "value": text, "remedy": text}
    add_quest(paths, ledger, "hostile", "rejected", now, report={"errors": [error]}, reason=text)
    ledger.event(text, text, text, "alert")
    ledger.add(
        "quests",
        stem=text,
        origin=text,
        state="recently_completed",
        priority="normal",
        form=text,
        rows=1,
        reason=text,
        created=now,
        updated=now,
    )
    (paths.inbox / 'a<b onclick="alert(1)">.jsonl').write_text("{}\n")


def _snapshot(paths: RealmPaths, quest: int, step: int, losses: list[float]) -> None:
    loss = losses[-1]
    write_json(
        paths.status,
        {
            "time": time.time(),
            "state": "battle",
            "hero": {"model": "qwen3", "parameters": 2_894_208, "global_step": step, "vocabulary": 4096},
            "battle": {
                "quest": BATTLES[-1][0],
                "quest_id": quest,
                "school": "scribe",
                "step": 268,
                "total_steps": 420,
                "loss": loss,
                "validation_loss": loss + 0.06,
                "damage": 1 / loss,
                "strain": 0.217,
                "zone": "productive",
                "tokens_per_second": 9762.0,
                "eta_seconds": 64.2,
                "learning_rate": 7.92e-4,
                "gradient_norm": 0.812,
                "mfu": None,
                "best_validation_loss": loss + 0.05,
                "token_accuracy": 0.631,
                "preview_score": 0.5,
                "previewed_step": step,
                "dice": _dice(),
            },
        },
    )


def _dice() -> dict:
    """A battle that is rolled, and a monster in it."""
    naturals = ((17, "success"), (3, "failure"), (20, "critical success"), (1, "critical failure"), (11, "failure"))
    rolls = [
        {
            "step": 268 - place,
            "natural": natural,
            "total": natural,
            "dc": 15,
            "sides": 20,
            "outcome": outcome,
            "scale": 0.5,
            "discarded": natural == 1,
            "said": ["A Gradient Ooze of level 2 appears."] if place == 4 else [],
        }
        for place, (natural, outcome) in enumerate(naturals)
    ]
    monster = {"name": "Gradient Ooze", "hit_points": 12, "of": 40}
    return {"rolls": rolls, "monster": monster, "experience": {"points": 184, "level": 2}}


def services(paths: RealmPaths, watchdog: int | None = None) -> None:
    """Every service lives, in the person of this process."""
    rows = []
    for name in ("watchdog", "daemon", "trainer", "tavern"):
        pid = watchdog if name == "watchdog" and watchdog else os.getpid()
        started = psutil.Process(pid).create_time()
        rows.append({"name": name, "pid": pid, "started": started, "state": "running", "restarts": 0})
        (paths.heartbeats / name).touch()
    write_json(paths.services, {"services": rows})


def advance(paths: RealmPaths, ledger: Ledger, steps: int = 1) -> None:
    """The battle goes on."""
    snapshot = read_json(paths.status)
    battle = snapshot["battle"]
    quest, first = battle["quest_id"], snapshot["hero"]["global_step"]
    record = StepRecord(paths.metrics, "DIO")
    for step in range(first + 1, first + steps + 1):
        record.add(Step(step, quest, time.time(), battle["loss"] + random.gauss(0, 0.05), 7e-4, 0.8, 4100, 0.42))
    record.flush()
    snapshot["hero"]["global_step"] += steps
    battle["step"] += steps
    write_json(paths.status, snapshot)
    for name in ("watchdog", "daemon", "trainer", "tavern"):
        (paths.heartbeats / name).touch()


def main(root: str, port: str = "8899") -> None:
    import threading

    import uvicorn

    from core.config import Config, Tavern
    from monitoring.servers.tavern.app import create_app

    paths = empty_realm(Path(root))
    ledger = Ledger(paths.ledger) if paths.status.exists() else fill(paths)
    services(paths)

    def go_on() -> None:
        while True:
            time.sleep(1)
            advance(paths, ledger)

    threading.Thread(target=go_on, daemon=True).start()
    config = Config(tavern=Tavern(port=int(port)))
    uvicorn.run(create_app(paths, config), host="127.0.0.1", port=int(port), timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
