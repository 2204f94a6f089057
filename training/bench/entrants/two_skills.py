"""Two skills taught one after the other: `python -m training.bench.entrants.two_skills TASK.json RESULT.json`.

A newborn hero is taught the first one until it knows it. Then it has twins, one for each ratio of replay, which are all taught
the same quests of the second; fresh problems of both are asked before and after.
"""

import shutil
from pathlib import Path
from typing import Any

from core.skills import Problem, skill
from training.bench.entrants.life import lead
from training.bench.hall import Hall

FRESH = 5_000_000  # seeds from here on are never trained
KNOWN, MOST_QUESTS = 0.95, 8
BATCH = 32


def life(task: dict[str, Any]) -> dict[str, Any]:
    """The scores of one seed: of the first skill when it is known, and of both after the second, by ratio."""
    root, seed, rows = Path(task["root"]), task["seed"], task["rows"]
    (first, level), second = task["first"], task["second"]
    hall, asked = Hall(root / "first", seed), _fresh(task["first"], seed, task["questions"])
    for part in range(MOST_QUESTS):
        hall.fight(f"{first}_{part}", skill(first).quest_rows(level, seed * 100 + part, rows), **_as(first))
        if (known := hall.asked(asked)).accuracy >= KNOWN:
            break
    return {
        "before": known.facts(),
        "quests": part + 1,
        "after": {str(ratio): _taught_on(hall, root / f"twin-{ratio}", ratio, task) for ratio in task["ratios"]},
        "second": second,
    }


def _taught_on(hall: Hall, root: Path, ratio: float, task: dict[str, Any]) -> dict[str, Any]:
    """What a twin of the hero in `hall` knows after the quests of the second skill."""
    shutil.copytree(hall.paths.root, root, symlinks=True)
    twin, (name, level), seed = Hall(root, task["seed"], replay_ratio=ratio), task["second"], task["seed"]
    for part in range(task["quests"]):
        twin.fight(f"{name}_{part}", skill(name).quest_rows(level, seed * 100 + part, task["rows"]), **_as(name))
    found = {which: twin.asked(_fresh(task[which], seed, task["questions"])).facts() for which in ("first", "second")}
    shutil.rmtree(root)
    return found


def _as(name: str) -> dict[str, Any]:
    return {"skill": name, "batch_size": BATCH}


def _fresh(which: tuple[str, int], seed: int, count: int) -> list[Problem]:
    name, level = which
    return skill(name).evaluation(level, FRESH + seed, count)


if __name__ == "__main__":
    lead(life)
