"""Exams after a battle: which problems are asked, how far they raise or lower a standing, and what they may cost.

It knows no model: `ask` says which problems were answered right, `price` what asking costs, in tokens of training. All of it
follows from seed, step and standing, so that exams that a crash repeats are the same exams.

Canaries are the same problems every time, those of the frontier and of levels that were mastered: they show what a battle
has changed. Where those of the frontier look well, an exam of fresh problems is held, a look in the sense of core/mastery.py.
What cannot be paid waits for the credit of later battles; only the sentinels of a quest from outside do not, for a verdict that
rests on nothing would bless anything.
"""

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from core.mastery import Score, is_lost, is_mastered
from core.skills import Problem, distinct, skill, skills
from core.standing import CANARIES, EXAMS, FIRST_CREDIT, Standing, key_of, level_of, practised

CANARY, PROMISING = 32, 28  # problems of a level; how many of them have to be right before an exam is held
EXAM, PART = 256, 64  # fresh problems of a look at most; as many at a time, and no more once it cannot be passed
CENSUS = 0.95  # of a closed world that has fewer problems than an exam
DOUBT = 96  # fresh problems that have to agree with canaries before a level is lost
NEWEST, OLDER = 3, 4  # mastered levels of a skill whose canaries are asked each time

Ask = Callable[[Sequence[Problem]], Sequence[bool]]
Price = Callable[[Sequence[Problem]], float]


class Examined(Protocol):
    """What is needed of the manifest from before."""

    standing: dict[str, Any]
    canaries: dict[str, list[int]]
    baseline: dict[str, list[int]]


@dataclass(frozen=True)
class Syllabus:
    """What exams a hero sits: weights of skills, the lowest level that counts, the realm's seed, the share of a battle."""

    priorities: Mapping[str, float] = field(default_factory=dict)
    first: int = 1
    seed: int = 0
    share: float = 0.1


def baseline(before: Examined, syllabus: Syllabus, ask: Ask) -> dict[str, Any]:
    """What a hero knows before its first battle, as values for its manifest. It is asked once in a life, and costs no credit."""
    sitting = Sitting(before, syllabus, 0, None, ask, lambda problems: 0.0)
    sitting.ask_canaries()
    return sitting.found() | {"baseline": sitting.canaries}


def after_battle(
    before: Examined,
    syllabus: Syllabus,
    step: int,
    own: str | None,
    trained_tokens: float,
    ask: Ask,
    price: Price,
    strange: bool = False,
) -> dict[str, Any]:
    """What the battle's end has changed, as values for the manifest that it is saved with. `own`: the quest's skill; `strange`:
    the realm did not write its rows, so that a verdict on them has to rest on something."""
    sitting = Sitting(before, syllabus, step, own, ask, price)
    sitting.standing = sitting.standing.earned(syllabus.share * trained_tokens)
    sitting.ask_canaries(strange)
    sitting.let_fall()
    for name in sitting.names:
        sitting.climb(name)
    return sitting.found() | {"baseline": before.baseline}


class Sitting:
    """All exams after one battle, in order; what they found is gathered."""

    def __init__(self, before: Examined, syllabus: Syllabus, step: int, own: str | None, ask: Ask, price: Price):
        self._syllabus, self._step, self._ask, self._price = syllabus, step, ask, price
        self.standing, self.canaries = Standing.of(before.standing), dict(before.canaries)
        own = own.upper() if own and own.upper() in skills() else None
        known = [name for name, levels in sorted(self.standing.mastered.items()) if levels and name in skills()]
        self.names = list(dict.fromkeys([*([own] if own else []), *practised(syllabus.priorities), *known]))
        self._rows: list[dict[str, Any]] = []
        self._asked: dict[str, Score] = {}  # canaries of this sitting
        self._estimates: dict[tuple[str, int], float] = {}
        self._put_off = False

    def found(self) -> dict[str, Any]:
        """As values for a manifest. Credit is not heaped up beyond what is put off, or an exam of any frontier would cost."""
        credit = {purse: round(tokens, 3) for purse, tokens in self.standing.credit.items()}
        if not self._put_off:
            dearest = max((self._estimate(key, EXAM) for key in self._frontiers()), default=0.0)
            credit[EXAMS] = min(credit[EXAMS], FIRST_CREDIT + dearest)
        standing = replace(self.standing, credit=credit)
        return {"standing": standing.as_json(), "canaries": self.canaries, "exams": self._rows}

    def ask_canaries(self, strange: bool = False) -> None:
        """As many as can be paid, all together: batches of generated answers are cheap when they are large. Those that
        cannot come first the next time, and nobody is paid before them. After a `strange` quest a sentinel of each skill is
        asked in any case, on credit."""
        watched = list(dict.fromkeys(self._watched()))
        waiting = [key for key in self.standing.owed if key in watched]
        waiting += [key for key in watched if key not in waiting]
        chosen: dict[str, Sequence[Problem]] = {}
        while waiting and self._pay_canaries(self._price(self._canaries_of(waiting[0]))):
            key = waiting.pop(0)
            chosen[key] = self._canaries_of(key)
        for key in self._sentinels(chosen) if strange else ():
            chosen[key] = self._canaries_of(key)
            self._owe(self._price(chosen[key]))
        self.standing = replace(self.standing, owed=tuple(key for key in waiting if key not in chosen))
        right = iter(self._ask([problem for problems in chosen.values() for problem in problems]) if chosen else ())
        for key, problems in chosen.items():
            self._note(key, Score(sum(next(right) for _ in problems), len(problems)))

    def _pay_canaries(self, price: float) -> bool:
        """From their own purse; where no frontier is near an exam, from that for exams as well, but for the first of it."""
        short, spare = price - self.standing.credit[CANARIES], self.standing.credit[EXAMS] - FIRST_CREDIT
        near = any(_is_promising(Score(*self.canaries.get(key, (0, 0)))) for key in self._frontiers())
        if 0 < short <= spare and not near:
            self.standing = self.standing.spent(EXAMS, short).spent(CANARIES, -short)
        return self._pay(CANARIES, price)

    def _sentinels(self, chosen: Container[str]) -> list[str]:
        """Of each skill that has mastered levels, and none among those `chosen`, the lowest, whose answers are the shortest."""
        known = [[key_of(name, level) for level in self.standing.levels(name)] for name in self.names]
        return [keys[0] for keys in known if keys and not any(key in chosen for key in keys)]

    def _owe(self, price: float) -> None:
        """Spend what is not there; later battles pay it back, as far as they can without being blind themselves."""
        short = max(self.standing.credit[CANARIES] - price, min(self.standing.credit[CANARIES], -FIRST_CREDIT))
        self.standing = self.standing.spent(CANARIES, self.standing.credit[CANARIES] - short)

    def _frontiers(self) -> list[str]:
        return [key_of(name, level) for name in self.names if (level := self._frontier(name)) is not None]

    def _frontier(self, name: str) -> int | None:
        return self.standing.frontier(name, self._syllabus.first)

    def let_fall(self) -> None:
        """Mastered levels whose canaries died, and fresh problems agree, count as unmastered again."""
        for key, score in list(self._asked.items()):
            name, level = level_of(key)
            if level not in self.standing.levels(name) or not is_lost(score):
                continue
            if self._pay(EXAMS, self._estimate(key, DOUBT)):
                problems = self._fresh(name, level, "doubt", DOUBT)
                fresh = Score(sum(self._ask(problems)), len(problems))
                fell = is_lost(fresh)
                self._row(key, "probe", fresh, outcome="lost" if fell else None)
                if fell:
                    self.standing = self.standing.fallen(name, level)

    def climb(self, name: str) -> None:
        """Raise the frontier of a skill as long as exams are passed."""
        while (level := self._frontier(name)) is not None:
            key = key_of(name, level)
            if not self._is_promising(key) or not self._passes(key):
                return
            self.standing = self.standing.risen(name, level)

    def _watched(self) -> list[str]:
        """Levels whose canaries are asked: every frontier, the newest mastered levels and some older ones, of which one
        changes from time to time, so that none goes unseen for long."""
        frontiers, others = [], []
        for name in self.names:
            if (level := self._frontier(name)) is not None:
                frontiers.append(key_of(name, level))
            older, newest = self.standing.levels(name)[:-NEWEST], self.standing.levels(name)[-NEWEST:]
            steady = older[:: max(1, -(-len(older) // OLDER))]
            turn = older[self._step % len(older)] if older else None
            others += [key_of(name, level) for level in (*reversed(newest), *steady, *([turn] if turn else []))]
        return [*frontiers, *others]

    def _is_promising(self, key: str) -> bool:
        """Whether the canaries of a level are right so often that an exam is worth a look."""
        if key not in self._asked:
            price = self._estimate(key, CANARY)
            if price + self._estimate(key, EXAM) > self.standing.credit[EXAMS]:  # canaries alone would lead nowhere
                self._put_off = True
                return False
            self.standing = self.standing.spent(EXAMS, price)
            problems = self._canaries_of(key)
            self._note(key, Score(sum(self._ask(problems)), len(problems)))
        return _is_promising(self._asked[key])

    def _passes(self, key: str) -> bool:
        """Hold an exam, the next look at this level. It ends early only when it cannot be passed any more."""
        if self._estimate(key, EXAM) > self.standing.credit[EXAMS]:
            self._put_off = True
            return False
        name, level = level_of(key)
        problems = self._fresh(name, level, "exam", EXAM)
        self.standing = self.standing.looked(name, level)
        look, right, asked = self.standing.looks[key], 0, 0
        while asked < len(problems):
            part = problems[asked : asked + PART]
            self.standing = self.standing.spent(EXAMS, self._price(part))
            right, asked = right + sum(self._ask(part)), asked + len(part)
            if not _shows_mastery(Score(right + len(problems) - asked, len(problems)), look):
                break
        passed = asked == len(problems) and _shows_mastery(Score(right, asked), look)
        self._row(key, "exam", Score(right, asked), look, "mastered" if passed else None)
        return passed

    def _canaries_of(self, key: str) -> Sequence[Problem]:
        return _canaries(key, self._syllabus.seed)

    def _fresh(self, name: str, level: int, purpose: str, count: int) -> Sequence[Problem]:
        """Problems that this hero was not asked before; of a small closed world all there are."""
        text = f"{self._syllabus.seed}/{self._step}/{purpose}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
        return distinct(skill(name).evaluation(level, seed, count))

    def _estimate(self, key: str, count: int) -> float:
        """What so many problems of a level cost, as far as its canaries can tell."""
        if (key, count) not in self._estimates:
            canaries = self._canaries_of(key)
            self._estimates[key, count] = self._price((list(canaries) * -(-count // len(canaries)))[:count])
        return self._estimates[key, count]

    def _pay(self, purse: str, price: float) -> bool:
        if price > self.standing.credit[purse]:
            self._put_off = True
            return False
        self.standing = self.standing.spent(purse, price)
        return True

    def _note(self, key: str, score: Score) -> None:
        self._asked[key] = score
        self.canaries[key] = [score.right, score.asked]
        self._row(key, "canary", score)

    def _row(self, key: str, kind: str, score: Score, look: int | None = None, outcome: str | None = None) -> None:
        name, level = level_of(key)
        facts = {"skill": name, "level": level, "right": score.right, "asked": score.asked}
        self._rows.append({"kind": kind, **facts, "look": look, "outcome": outcome})


def asked_canaries(exams: Sequence[Mapping[str, Any]], canaries: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `canaries` that were asked of the weights that `exams` are of; the others are remembered from before."""
    asked = {key_of(row["skill"], row["level"]) for row in exams if row["kind"] == "canary"}
    return {key: score for key, score in canaries.items() if key in asked}


def _shows_mastery(score: Score, look: int) -> bool:
    """By the interval; of a world so small that all of it was asked there is no luck, and so much has to be right."""
    return score.accuracy >= CENSUS if score.asked < EXAM else is_mastered(score, look)


def _is_promising(canaries: Score) -> bool:
    return canaries.asked > 0 and canaries.right * CANARY >= PROMISING * canaries.asked


@lru_cache(maxsize=256)
def _canaries(key: str, seed: int) -> Sequence[Problem]:
    name, level = level_of(key)
    return distinct(skill(name).evaluation(level, seed, CANARY))
