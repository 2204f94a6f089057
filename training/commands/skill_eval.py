"""`skill eval`: how well a checkpoint answers fresh problems of a level; here beside whatever trains, or by the Oracle's box."""

import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from core.errors import UserError
from core.mastery import Score
from core.progress import standing_of
from core.skills import Problem, distinct, skill
from management.model_shelf import VaultShelf
from training import tavern_link
from training.realm import Realm
from training.terminal import duration_text, is_terminal, styled

MOST_ASKED = 10_000
ANSWER_TOKENS = 512
PATIENCE_SECONDS = 120.0  # for an Oracle that is just being started, or has others to answer
TOLD_SECONDS = 5.0


def add_arguments(parser) -> None:
    parser.add_argument("name", metavar="SKILL")
    parser.add_argument("--level", type=int, help="default: the hero's frontier")
    parser.add_argument("-n", "--count", type=int, default=200, help="problems (default: 200)")
    parser.add_argument("--checkpoint", metavar="ID", default="hero", help="hero, champion or a checkpoint's id (hero)")
    parser.add_argument("--seed", type=int, help="of the problems (default: another one each time)")
    text = "who answers: this process, or the Oracle, which may be a box of its own (default: here)"
    parser.add_argument("--on", choices=("here", "oracle"), default="here", help=text)


def evaluate(realm: Realm) -> None:
    args, chosen = realm.args, skill(realm.args.name)
    if not 1 <= args.count <= MOST_ASKED:
        raise UserError(f"-n {args.count}: give 1 to {MOST_ASKED:,} problems")
    first = standing_of(realm.existing, realm.config.hero.name).frontier(
        chosen.name, realm.config.idle_generation.level
    )
    level = args.level if args.level is not None else first or chosen.levels[-1]
    seed = args.seed if args.seed is not None else random.randrange(2**31)
    problems = distinct(chosen.evaluation(level, seed, args.count))
    who, score = (_by_the_oracle if args.on == "oracle" else _here)(realm, problems)
    facts = {"skill": chosen.name, "level": level, **who, "seed": seed, **score.facts()}
    realm.report(facts, lambda: _text(facts, score))


def _text(facts: dict[str, Any], score: Score) -> str:
    accuracy, low, high = (f"{100 * facts[key]:.1f}" for key in ("accuracy", "low", "high"))
    first = f"{facts['skill']} level {facts['level']}, {facts['checkpoint']}: {styled(f'{accuracy} %', 'gold')} right"
    of = f"{score.right} of {score.asked} problems of seed {facts['seed']}"
    notice = f"\n{facts['notice']}" if facts.get("notice") else ""
    return f"{first}, between {low} and {high} % (95 % interval, {of}){notice}"


def _here(realm: Realm, problems: Sequence[Problem]) -> tuple[dict[str, Any], Score]:
    shelf = VaultShelf(realm.paths)
    checkpoint, folder = shelf.find(realm.args.checkpoint)
    shelf.check(checkpoint)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
    from core.forge.exam import examine_folder  # torch

    return {"checkpoint": checkpoint, "by": "process"}, examine_folder(folder, problems)


def _by_the_oracle(realm: Realm, problems: Sequence[Problem]) -> tuple[dict[str, Any], Score]:
    """One question after the other, so that people who talk with the Oracle meanwhile wait for one answer at most."""
    client = tavern_link.client(realm.paths, realm.config.tavern)
    if client is None:
        raise UserError(
            "the Oracle is asked through the Tavern, and the realm does not run: `start-all`, or leave --on out"
        )
    about: dict[str, str] = {}
    grade = skill(problems[0].skill).grade
    try:
        said = _answers(client, realm.args.checkpoint, problems, about)
        right = sum(grade(problem, answer) == 1.0 for problem, answer in zip(problems, said, strict=True))
    finally:
        client.close()
    who = {"checkpoint": about.get("checkpoint") or about.get("model") or realm.args.checkpoint}
    return who | {"by": about.get("by"), "notice": about.get("notice")}, Score(right, len(problems))


def _answers(client, model: str, problems: Sequence[Problem], about: dict[str, str]) -> Iterator[str]:
    began = told = time.monotonic()
    for done, problem in enumerate(problems):
        if is_terminal() and time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            left = (told - began) / done * (len(problems) - done)
            print(f"{done} of {len(problems)} answered, {duration_text(left)} to go", file=sys.stderr, flush=True)
        yield client.ask(model, problem.prompt, ANSWER_TOKENS, PATIENCE_SECONDS, about)
