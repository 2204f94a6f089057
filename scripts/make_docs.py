"""Writes docs/reference.md from the code: settings, trainer keys, verbs, row forms, schools, skills, dice, endpoints.

python scripts/make_docs.py          write it
python scripts/make_docs.py --check  exit 1 if it is not what the code says
"""

import argparse
import json
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"


def settings() -> list[str]:
    from core.config import Section, every_field, explain

    lines = [
        "## Settings",
        "",
        "`config.json`; every field is optional.",
        "",
        "| Field | Default | Allowed | Meaning |",
        "|---|---|---|---|",
    ]
    for path, field in every_field().items():
        if path.count(".") < 3 and not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            facts = explain(path)
            lines.append(
                f"| `{path}` | `{json.dumps(facts['default'])}` | {_cell(facts['allowed'])} | {_cell(facts['description'])} |"
            )
    return lines


def sidecar() -> list[str]:
    from core.quest import Sidecar

    lines = [
        "## Sidecar",
        "",
        "`NAME.quest.json` beside a dropped `NAME.jsonl`.",
        "",
        "| Field | Meaning |",
        "|---|---|",
    ]
    return lines + [f"| `{name}` | {_cell(field.description)} |" for name, field in Sidecar.model_fields.items()]


def trainer_keys() -> list[str]:
    from core.trainer_keys import HONOURED, IRRELEVANT, OWNED

    lines = [
        "## Trainer keys",
        "",
        "`trainer` in `config.json` takes `transformers.TrainingArguments` by their own names. Each is honoured, or refused "
        "with what to use instead, or refused because it means nothing here.",
        "",
        "| Key | Allowed | |",
        "|---|---|---|",
    ]
    lines += [f"| `{key}` | {_cell(rule.words)} | honoured: {_cell(rule.does)} |" for key, rule in HONOURED.items()]
    lines += [f"| `{key}` | – | the realm's: {_cell(remedy)} |" for key, remedy in OWNED.items()]
    return (
        lines + [f"| `{key}` | – | irrelevant: {_cell(why)} |" for key, why in IRRELEVANT.items()] + ["", *optimizers()]
    )


def optimizers() -> list[str]:
    from core.optimizer_names import OPTIMIZERS

    lines = [
        "### Optimizers",
        "",
        "`trainer.optim` takes the names of transformers. Where the optimizer changes from quest to quest, the new one begins "
        "without moments and an event says so; `adamw_torch` and `adamw_torch_fused` hand theirs on.",
        "",
        "| Name | Needs | `optim_args` |",
        "|---|---|---|",
    ]
    for name, known in OPTIMIZERS.items():
        needs = f"`pip install {known.install}`" if known.install else "–"
        needs += (", a GPU" if known.needs_gpu else "") + (", `optim_target_modules`" if known.needs_targets else "")
        needs += f"; {known.remark}" if known.remark else ""
        lines.append(
            f"| `{name}` | refused: {_cell(known.refused)} | |"
            if known.refused
            else f"| `{name}` | {needs} | {', '.join(f'`{each}`' for each in known.arguments) or '–'} |"
        )
    return lines


def verbs() -> list[str]:
    from training.cli import build_parser

    lines = [
        "## Verbs",
        "",
        "`python -m training VERB`. Exit 0 done, 1 failed, 2 wrong usage. Verbs that report take `--json`.",
        "",
        "| Verb | |",
        "|---|---|",
    ]
    return lines + [f"| `{usage}` | {_cell(text)} |" for usage, text in _verbs_of(build_parser(), "")]


def _verbs_of(parser: argparse.ArgumentParser, prefix: str):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help for choice in action._choices_actions}
            for name, child in action.choices.items():
                children = list(_verbs_of(child, f"{prefix}{name} "))
                yield from children or [(f"{prefix}{name}{_arguments(child)}", texts.get(name) or "")]


def _arguments(parser: argparse.ArgumentParser) -> str:
    words = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or action.dest in ("help", "root", "json"):
            continue
        name = action.metavar or action.dest.upper()
        option = action.option_strings[-1] if action.option_strings else ""
        text = option + (f" {name}" if action.nargs != 0 and option else "" if option else str(name))
        words.append(text if not option and action.nargs not in ("?", "*") else f"[{text}]")
    return "".join(f" {word}" for word in words)


def rows() -> list[str]:
    from core.formats import FORMS

    lines = [
        "## Row forms",
        "",
        "Tried in this order; the form most of the first rows have is the file's.",
        "",
        "| Form | Fields | School |",
        "|---|---|---|",
    ]
    return lines + [f"| {form.name} | {_cell(_needs(form))} | {form.school} |" for form in FORMS]


def _needs(form) -> str:
    return " or ".join(" + ".join(f"`{name}`" for name in sorted(need)) for need in form.needs)


def schools_and_skills() -> list[str]:
    from core.schools import schools
    from core.skills import skill, skills

    lines = ["## Schools", "", "| School | Motto | Rows |", "|---|---|---|"]
    lines += [f"| {school.name} | {school.motto} | {_cell(school.rows)} |" for school in schools()]
    lines += ["", "## Skills", "", "| Skill | Levels | |", "|---|---|---|"]
    return lines + [f"| {name} | {len(skill(name).levels)} | {_cell(skill(name).title)} |" for name in skills()]


def dice() -> list[str]:
    from core.dice.abilities import LONG_REST, SHORT_REST
    from core.dice.characters import CLASSES
    from core.dice.monsters import MONSTERS

    lines = [
        "## Dice",
        "",
        f"*Tier*: 1, and 1 more from levels 5, 9, 13 and 17 on. A short rest comes every {SHORT_REST} turns, a long one every "
        f"{LONG_REST}; a turn is a roll.",
        "",
        "| Class | Ability | From level | |",
        "|---|---|---|---|",
    ]
    for name, kind in CLASSES.items():
        lines += [f"| {name} | {each.name} | {each.from_level} | {_cell(each.text)} |" for each in kind.abilities]
    lines += ["", "| Monster | What it does while it lives |", "|---|---|"]
    return lines + [f"| {name} | {_cell(kind.text)} |" for name, kind in MONSTERS.items()]


def endpoints() -> list[str]:
    from monitoring.servers.tavern.app import ROUTERS

    lines = ["## Endpoints", "", "The Tavern's, on `http://localhost:8888`.", "", "| | Path | |", "|---|---|---|"]
    routes = [route for router in ROUTERS for route in router.routes]
    return lines + [
        f"| {method} | `{route.path}` | {_cell(_summary(route))} |"
        for route in routes
        for method in sorted(route.methods - {"HEAD"})
    ]


def _summary(route) -> str:
    return (route.endpoint.__doc__ or "").strip().split("\n")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page() -> str:
    parts = (settings, sidecar, trainer_keys, verbs, rows, schools_and_skills, dice, endpoints)
    head = ["# Reference", "", "Made from the code by `scripts/make_docs.py`; a test keeps it current.", ""]
    return "\n".join(head + ["\n".join([*part(), ""]) for part in parts])


def main() -> int:
    text = page()
    if "--check" in sys.argv:
        return 0 if PAGE.read_text() == text else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
