"""`skill list|sample|eval|serve` and `school list`: what can be taught, how, and how well a hero knows it."""

import os
import random
import sys
from dataclasses import asdict

from core.errors import UserError
from core.logs import visible
from core.mastery import Score
from core.progress import standing_of
from core.schools import schools
from core.skills import skill, skills
from management.model_shelf import VaultShelf
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import styled, table

MOST_ASKED = 10_000


def register(verbs) -> None:
    actions = group(verbs, "skill", "curriculum domains: list, sample, eval, serve")
    verb(actions, "list", list_skills, "the skills and their levels")
    parser = verb(actions, "sample", sample, "problems of a skill; the same level and seed give the same problems")
    parser.add_argument("name", metavar="SKILL")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", "--count", type=int, default=5)
    parser.add_argument("--evaluation", action="store_true", help="of those that are kept for evaluations")
    parser = verb(actions, "eval", evaluate, "examine a checkpoint now, on fresh problems; nothing is kept of it")
    parser.add_argument("name", metavar="SKILL")
    parser.add_argument("--level", type=int, help="default: the hero's frontier")
    parser.add_argument("-n", "--count", type=int, default=200, help="problems (default: 200)")
    parser.add_argument("--checkpoint", metavar="ID", default="hero", help="hero, champion or a checkpoint's id (hero)")
    parser.add_argument("--seed", type=int, help="of the problems (default: another one each time)")
    parser = verb(actions, "serve", serve, "problems and grades of one skill by HTTP, for other machines")
    parser.add_argument("name", metavar="SKILL")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; any but loopback asks for the token")
    parser.add_argument("--port", type=int, default=8080, help="TCP port (8080)")
    actions = group(verbs, "school", "learning paradigms: list")
    verb(actions, "list", list_schools, "the schools that teach, and the rows they take")


def list_skills(realm: Realm) -> None:
    found = [skill(name) for name in skills()]
    rows = [{"name": one.name, "title": one.title, "levels": list(one.levels)} for one in found]
    realm.report(
        rows,
        lambda: table(
            ("name", "title", "levels"),
            ((row["name"], row["title"], f"{row['levels'][0]} to {row['levels'][-1]}") for row in rows),
        ),
    )


def sample(realm: Realm) -> None:
    args = realm.args
    chosen = skill(args.name)
    problems = (chosen.evaluation if args.evaluation else chosen.sample)(args.level, args.seed, args.count)
    text = "\n\n".join(
        f"{_lines(problem.prompt)}\n{styled(_lines(problem.response or problem.answer), 'green')}"
        for problem in problems
    )
    realm.report([asdict(problem) for problem in problems], text)


def evaluate(realm: Realm) -> None:
    """In this process, beside whatever trains."""
    args, chosen = realm.args, skill(realm.args.name)
    if not 1 <= args.count <= MOST_ASKED:
        raise UserError(f"-n {args.count}: give 1 to {MOST_ASKED:,} problems")
    checkpoint, folder = VaultShelf(realm.existing).find(args.checkpoint)
    first = standing_of(realm.paths, realm.config.hero.name).frontier(chosen.name, realm.config.idle_generation.level)
    level = args.level if args.level is not None else first or chosen.levels[-1]
    seed = args.seed if args.seed is not None else random.randrange(2**31)
    problems = list({each.prompt: each for each in chosen.evaluation(level, seed, args.count)}.values())
    VaultShelf(realm.paths).check(checkpoint)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
    from core.forge.exam import examine_folder  # torch

    score = examine_folder(folder, problems)
    low, high = score.interval()
    facts = {"skill": chosen.name, "level": level, "checkpoint": checkpoint, "seed": seed}
    facts |= {"right": score.right, "asked": score.asked, "accuracy": score.accuracy, "low": low, "high": high}
    realm.report(facts, lambda: _score_text(facts, score))


def _score_text(facts: dict, score: Score) -> str:
    accuracy, low, high = (f"{100 * facts[key]:.1f}" for key in ("accuracy", "low", "high"))
    first = f"{facts['skill']} level {facts['level']}, {facts['checkpoint']}: {styled(f'{accuracy} %', 'gold')} right"
    return f"{first}, between {low} and {high} % (95 % interval, {score.right} of {score.asked} problems of seed {facts['seed']})"


def serve(realm: Realm) -> None:
    """The same answers as those of the Tavern's /api/skills/SKILL/…, of one skill and without a realm."""
    from core.config import Tavern
    from monitoring.servers.skills import create_app
    from monitoring.servers.tavern.security import Rules, read_or_make_token
    from training.web_server import listen, serve_until_interrupted

    args, chosen = realm.args, skill(realm.args.name)
    listener = listen(args.host, args.port, f"The skill {chosen.name}", "--port")
    door = Tavern(host=args.host, port=args.port, hosts=realm.config.tavern.hosts)
    app = create_app(chosen.name, Rules.of(door, read_or_make_token(realm.paths), frozenset()))
    url = f"http://{args.host}:{args.port}/api/skills/{chosen.name}"
    told = f"{chosen.title} is served: {styled(url + '/sample', 'gold')} and /grade. Ctrl-C ends it."
    realm.report({"url": url, "skill": chosen.name, "levels": list(chosen.levels)}, told)
    sys.stdout.flush()
    serve_until_interrupted(app, listener)


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.splitlines()))


def list_schools(realm: Realm) -> None:
    cards = [asdict(card) for card in schools()]
    realm.report(
        cards,
        lambda: "\n".join(
            f"{styled(card['title'], 'bold')} ({card['name']}): {card['motto']}\n  takes {card['rows']}"
            for card in cards
        ),
    )
