"""What the Oracle's page shows, as plain dictionaries: who can be asked and how, the state, a talk, a duel. It knows no HTTP.

Words of models become HTML in one place only, `markdown.to_html`.
"""

from typing import Any

from markupsafe import Markup

from core.chat_request import CHAMPION, HERO, USUAL_TOKENS
from monitoring.oracle import LOCAL
from monitoring.servers.tavern import lessons
from monitoring.servers.tavern.answers import Answer
from monitoring.servers.tavern.duels import CHOICES, SIDES, Duel
from monitoring.servers.tavern.markdown import to_html
from monitoring.servers.tavern.words import number

FATES = {
    "correction": lessons.fate({"messages": []}),
    "dislike": lessons.fate({"messages": [], "label": False}),
    "preference": lessons.fate({"prompt": [], "chosen": [], "rejected": []}),
}
BECOMES = f"Your choice becomes a row of training data: prompt, chosen, rejected. {FATES['preference']}"
DIALS = {"model": HERO, "temperature": 0.7, "max_tokens": USUAL_TOKENS, "thinking": False}
ENDINGS = {"length": "Cut at the maximum length."}
TITLES = {"left": "Left", "right": "Right"}


def card(state: dict[str, Any]) -> dict[str, Any]:
    """The Oracle's state for people. `kind`: go, idle or blocked; `wake`: whether a button that starts it makes sense."""
    local, told = state["kind"] == LOCAL, {"kind": "go", "wake": False, "problem": None}
    hero = state[HERO] or "nobody yet"
    if local and state["state"] == "ready":
        return told | {"title": "The Oracle is awake", "text": f"The hero is {hero}. This machine answers."}
    if local and state["state"] == "starting":
        return told | {
            "kind": "idle",
            "title": "The Oracle wakes up",
            "text": "Your question is answered when it is awake.",
        }
    if local and state["state"] == "off":
        text = "It wakes with the first question, too, and sleeps again when nobody has asked for a while."
        return told | {"kind": "idle", "wake": True, "title": "The Oracle sleeps", "text": text}
    if local:
        return told | {"kind": "blocked", "title": "The Oracle cannot answer", "text": state["problem"]}
    if state["state"] == "down":
        text = f"{state['problem']} Checkpoints, chosen by their ids, are answered by this machine meanwhile."
        return told | {"kind": "blocked", "title": "The Oracle's box is down", "text": text}
    if state["notice"]:
        return told | {"kind": "blocked", "title": "The box speaks with other weights", "text": state["notice"]}
    return told | {
        "title": "The Oracle's box is awake",
        "text": f"{state['url']} answers as {hero}, the hero of today.",
    }


def choices(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whom one can ask, in groups: the realm's names, its checkpoints, the models of the box."""
    groups = {"The realm": [], "Checkpoints": [], "The box": []}
    for model in models:
        own = model["owned_by"] == "realm"
        group = "The box" if not own else "The realm" if model["id"] in (HERO, CHAMPION) else "Checkpoints"
        groups[group].append({"id": model["id"], "label": _label(model)})
    return [{"title": title, "models": found} for title, found in groups.items() if found]


def _label(model: dict[str, Any]) -> str:
    name = f"The {model['id']}" if model["id"] in (HERO, CHAMPION) else None
    step = None if model["step"] is None else f"Step {number(model['step'])}"
    return " · ".join(filter(None, (name, step, None if name else model["id"])))


def pair(models: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """Two who make a good duel: the hero, and the earliest checkpoint that is not the hero's, or anybody else."""
    hero = next((model for model in models if model["id"] == HERO), None)
    others = [model for model in models if not hero or model["checkpoint"] != hero["checkpoint"]]
    early = sorted(
        (one for one in others if one["step"] is not None), key=lambda one: (one["step"], one["id"] == CHAMPION)
    )
    found = [one["id"] for one in (hero, *early, *others) if one]
    first = next(iter(found), None)
    return first, next((one for one in found if one != first), None)


def turns(talk: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns of a talk that the server keeps: questions, and answers as they ended."""
    shown = []
    for turn in talk:
        answer = turn.get("answer")
        shown.append(turn | {"html": Markup(to_html(turn["content"])), **(_answered(answer) if answer else {})})
    return shown


def _answered(answer: Answer) -> dict[str, Any]:
    return {
        "model": answer.model or "the Oracle",
        "thought": answer.thought,
        "html": Markup(to_html(answer.words)),
        "ending": ENDINGS.get(answer.ended, ""),
    }


def arena(duel: Duel | None) -> dict[str, Any]:
    """A duel as it may be shown: nobody's name before the choice."""
    if duel is None:
        return {
            "id": "",
            "state": "none",
            "prompt": "",
            "sides": [],
            "choices": CHOICES.items(),
            "told": BECOMES,
        }
    state = "decided" if duel.choice else "blind" if duel.answered else "waiting"
    told = {"waiting": "They have not both answered. Ask again for a new duel.", "blind": BECOMES}
    return {
        "id": duel.id,
        "state": state,
        "prompt": duel.messages[-1]["content"],
        "sides": [_side(duel, name) for name in SIDES],
        "choices": CHOICES.items(),
        "told": duel.outcome.get("text") or told[state],
    }


def _side(duel: Duel, name: str) -> dict[str, Any]:
    side = duel.sides[name]
    shown = _answered(side.answer) if side.answer else {"thought": "", "html": "", "ending": ""}
    title = f"{TITLES[name]}: {side.model}" if duel.choice else TITLES[name]
    return shown | {"model": None, "name": name, "title": title, "won": duel.choice == name}
