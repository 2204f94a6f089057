"""`skill list|sample` and `school list`: what can be taught, and how."""

from dataclasses import asdict

from core.logs import visible
from core.schools import schools
from core.skills import skill, skills
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import styled, table


def register(verbs) -> None:
    actions = group(verbs, "skill", "curriculum domains: list, sample")
    verb(actions, "list", list_skills, "the skills and their levels")
    parser = verb(actions, "sample", sample, "problems of a skill; the same level and seed give the same problems")
    parser.add_argument("name", metavar="SKILL")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", "--count", type=int, default=5)
    parser.add_argument("--evaluation", action="store_true", help="of those that are kept for evaluations")
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
