"""One school's proof with one seed: `python -m training.bench.entrants.school_life TASK.json RESULT.json`.

Each function takes a hero from its birth and answers the numbers that `bench schools` judges; what it learns is easy enough
for a micro hero, what it is asked is fresh.
"""

import random
import shutil
from pathlib import Path
from typing import Any

import orjson

from core.schools import school
from core.skills import Problem, skill
from training.bench.entrants.life import lead
from training.bench.hall import Hall, Row, evaluation

SKILL, LEVEL, FRESH = "REV", 1, 5_000_000  # seeds from FRESH on are never trained
ASKED = 256
WORDS = ("red", "blue", "green", "gold", "iron", "salt", "snow", "moss", "fern", "clay", "reed", "ash")


def scribe(task: Row) -> Row:
    """Held-out loss, in nats a label."""
    hall = _hall(task)
    fresh = _taught(FRESH + task["seed"], ASKED)
    before = evaluation(hall.classroom(school("scribe")), fresh).loss
    hall.fight("lessons", _taught(task["seed"], task["rows"]), batch_size=16)
    return {"before": before, "after": evaluation(hall.classroom(school("scribe")), fresh).loss}


def oracle(task: Row) -> Row:
    """Held-out loss of plain and of surprise-weighted training on the same rows, steps and seed."""
    found = {}
    for name in ("scribe", "oracle"):
        hall = _hall(task, name)
        hall.fight("lessons", _taught(task["seed"], task["rows"]), batch_size=16, school=name)
        fresh = _taught(FRESH + task["seed"], ASKED)
        found[name] = evaluation(hall.classroom(school("scribe")), fresh).loss
        found[f"{name}_right"] = hall.asked(_problems(FRESH + task["seed"])).accuracy
    return found


def judge(task: Row) -> Row:
    """Share of held-out pairs judged right, of a clean set: the chosen answer says the word asked for, calmly."""
    hall = _hall(task)
    hall.fight("words", _words(task["seed"], 512), batch_size=16)
    fresh = _preferences(FRESH + task["seed"], ASKED)
    room = hall.classroom(school("judge", form="preference"))
    room.remember(fresh)
    before = evaluation(room, fresh).accuracy
    hall.fight("taste", _preferences(task["seed"], task["rows"]), batch_size=16)
    return {"before": before, "after": evaluation(room, fresh).accuracy}


def judge_of_file(task: Row) -> Row:
    """The same of a user's file, a row a line or one array: of five folds one is held out, the others are its battle."""
    content = Path(task["file"]).read_bytes().strip()
    rows = orjson.loads(content) if content.startswith(b"[") else list(map(orjson.loads, content.splitlines()))
    random.Random(task["seed"]).shuffle(rows)
    held_out, others = (
        rows[task["fold"] :: task["folds"]],
        [row for place, row in enumerate(rows) if place % task["folds"] != task["fold"]],
    )
    hall = _hall(task)
    room = hall.classroom(school("judge", form="preference"))
    room.remember(held_out)
    hall.fight("taste", others, batch_size=8, epochs=2)
    found = [evaluation(room, [row]).accuracy == 1.0 for row in held_out]
    return {"right": sum(found), "asked": len(found)}


def whisper(task: Row) -> Row:
    """Divergence from the teacher on fresh rows, in nats a label; the teacher is the hero of another realm."""
    teacher = _hall(task, "teacher", seed=task["seed"] + 1000)
    teacher.fight("lessons", _taught(task["seed"] + 77, 2 * task["rows"]), batch_size=16)
    hall = _hall(task)
    shutil.copytree(teacher.paths.vault / teacher.worker.tip.id, hall.paths.models / "teacher")
    fresh = _taught(FRESH + task["seed"], ASKED)
    room = hall.classroom(school("whisper"))
    room.school.teacher = teacher.model
    before = evaluation(room, fresh).loss
    rows = _taught(task["seed"], task["rows"])
    hall.fight("echo", rows, batch_size=16, school="whisper", schools={"whisper": {"teacher": "teacher"}})
    return {"before": before, "after": evaluation(room, fresh).loss}


def champion(task: Row) -> Row:
    """Mean reward on fresh problems, where SFT left it and after rewards."""
    hall, fresh = _half_taught(task)
    before = hall.asked(fresh).accuracy
    rows = [
        {"prompt": each.prompt, "answer": each.answer, "skill": SKILL, "level": LEVEL}
        for each in skill(SKILL).sample(LEVEL, task["seed"] + 99, task["rows"])
    ]
    cool = {"champion": {"temperature": 0.4}}  # a young hero's draws at 1 are hardly ever right, and teach nothing
    hall.fight("duels", rows, batch_size=8, school="champion", schools=cool)
    return {"before": before, "after": hall.asked(fresh).accuracy}


def mirror(task: Row) -> Row:
    """Share of wrong answers to fresh problems, before sparring and after the corrections were trained."""
    hall, fresh = _half_taught(task)
    before = 1 - hall.asked(fresh).accuracy
    rows = [
        {"prompt": each.prompt, "answer": each.answer, "skill": SKILL, "level": LEVEL}
        for each in skill(SKILL).sample(LEVEL, task["seed"] + 99, task["rows"])
    ]
    hall.fight("sparring_ground", rows, school="mirror")
    hall.fight_what_came(batch_size=16)
    return {"before": before, "after": 1 - hall.asked(fresh).accuracy}


def _hall(task: Row, name: str = "realm", **config: Any) -> Hall:
    return Hall(Path(task["root"]) / name, config.pop("seed", task["seed"]), **config)


def _half_taught(task: Row) -> tuple[Hall, list[Problem]]:
    """A hero that knows some of the skill, taught until at least a quarter of other problems is right."""
    hall, fresh = _hall(task), _problems(FRESH + task["seed"])
    for part in range(24):
        hall.fight(f"lessons_{part}", _taught(task["seed"] + part, 128), batch_size=16)
        if hall.asked(_problems(FRESH + 1_000 + task["seed"])).accuracy >= 0.25:
            break
    return hall, fresh


def _taught(seed: int, count: int) -> list[Row]:
    return list(skill(SKILL).quest_rows(LEVEL, seed, count))


def _problems(seed: int) -> list[Problem]:
    return skill(SKILL).evaluation(LEVEL, seed, ASKED)


def _words(seed: int, count: int) -> list[Row]:
    draw = random.Random(seed)
    return [{"question": f"Say {one} or {two}.", "answer": f"{one}."} for one, two in _pairs(draw, count)]


def _preferences(seed: int, count: int) -> list[Row]:
    draw = random.Random(seed)
    return [
        {"prompt": f"Say {one} or {two}.", "chosen": f"{two}.", "rejected": f"{one}."}
        for one, two in _pairs(draw, count)
    ]


def _pairs(draw: random.Random, count: int) -> list[tuple[str, str]]:
    return [(f"{a} {b}", c) for a, b, c in (draw.sample(WORDS, 3) for _ in range(count))]


LIVES = {life.__name__: life for life in (scribe, mirror, judge, judge_of_file, champion, whisper, oracle)}


if __name__ == "__main__":
    lead(lambda task: LIVES[task["school"]](task))
