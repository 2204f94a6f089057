"""`skill list|sample|eval|spar|serve` and `school list`: what can be taught, how, and how well a hero knows it."""

import secrets
import sys
from dataclasses import asdict

import orjson

from core.errors import UserError
from core.inbox import drop
from core.logs import visible
from core.paths import PRIORITIES
from core.progress import standing_of
from core.schools import schools
from core.skills import Problem, distinct, skill, skills
from training.commands import skill_eval
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import styled, table


def register(verbs) -> None:
    actions = group(verbs, "skill", "curriculum domains: list, sample, eval, spar, serve")
    verb(actions, "list", list_skills, "the skills and their levels")
    parser = verb(actions, "sample", sample, "problems of a skill; the same level and seed give the same problems")
    parser.add_argument("name", metavar="SKILL")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", "--count", type=int, default=5)
    parser.add_argument("--evaluation", action="store_true", help="of those that are kept for evaluations")
    parser = verb(actions, "eval", skill_eval.evaluate, "examine a checkpoint now, on fresh problems; nothing is kept")
    skill_eval.add_arguments(parser)
    parser = verb(actions, "spar", spar, "let the hero answer fresh problems, and teach it what it got wrong")
    parser.add_argument("name", metavar="SKILL")
    parser.add_argument("--level", type=int, help="the frontier, unless given")
    parser.add_argument("-n", "--count", type=int, default=200, help="problems (200)")
    parser.add_argument("--seed", type=int, help="the same problems again; others each time, unless given")
    parser.add_argument(
        "--priority", choices=PRIORITIES, default="normal", help="of the questions; corrections are high"
    )
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


def spar(realm: Realm) -> None:
    """Problems that are not kept for evaluations, as a quest for the Mirror."""
    args, chosen = realm.args, skill(realm.args.name)
    if args.count < 1:
        raise UserError(f"--count {args.count}: ask at least one problem")
    level = _frontier(realm, chosen.name) if args.level is None else args.level
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    problems = distinct(chosen.sample(level, seed, args.count))
    asked = {"school": "mirror", "skill": chosen.name, "seed": seed}
    asked["schools"] = {"mirror": {"prompts": len(problems)}}
    appeared = []
    with drop(realm.existing, f"spar_{chosen.name}_level{level}", args.priority, asked, appeared.append) as file:
        file.writelines(orjson.dumps(_question(problem)) + b"\n" for problem in problems)
    facts = {"stem": appeared[0].stem, "skill": chosen.name, "level": level, "seed": seed, "count": len(problems)}
    later = "" if realm.runs else " The realm does not run; it takes them at the next `start-all`."
    text = (
        f"{len(problems)} problems of {chosen.name} at level {level} lie in the inbox as {facts['stem']}, seed {seed}."
    )
    realm.report(facts, text + later)


def _frontier(realm: Realm, name: str) -> int:
    """The lowest level that the hero has not mastered, or the highest there is."""
    standing = standing_of(realm.paths, realm.config.hero.name)
    return standing.frontier(name, realm.config.idle_generation.level) or skill(name).levels[-1]


def _question(problem: Problem) -> dict[str, str | int]:
    names = ("prompt", "answer", "response", "level", "skill")
    return {name: value for name in names if (value := getattr(problem, name)) != ""}


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
