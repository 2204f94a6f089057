"""How training put its rows into words: the hero's chat template and the system prompt of the newest quest, for the pages.

Who asks in other words than training used gets other answers, so the Oracle's page shows both. It loads no model.
"""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from core.chat_template import ChatTemplate, TemplateFailed, constants_of, template_source
from core.durable import read_json
from core.errors import UserError
from core.formats import FORMS, Conversation
from core.hero import tokenizer_folder
from core.quest import Quest
from core.quest_file import read_rows
from core.training_queue import TrainingQueue
from monitoring.servers.tavern.realm import Realm

LOOKED_AT = 100  # rows of a quest
_TALK = [{"role": "system", "content": "(system prompt)"}, {"role": "user", "content": "(your question)"}]


def training_words(realm: Realm) -> dict[str, Any]:
    """`template` and an `example` of what it writes, `system`, and a sentence on each."""
    return _template(realm) | _system(realm)


def _template(realm: Realm) -> dict[str, Any]:
    nothing = {"template": None, "template_file": None, "example": None}
    try:
        folder = tokenizer_folder(realm.paths, realm.config)
    except UserError as problem:
        return nothing | {"template_told": f"It is unclear who the hero is: {problem}"}
    config = read_json(folder / "tokenizer_config.json", {})
    source = template_source(folder, config)
    if not source:
        return nothing | {"template_told": f"{folder.name} has no chat template."}
    remote = " The box at oracle.url writes with its own." if realm.config.oracle.url else ""
    return {
        "template": source,
        "template_file": f"{folder.name}/chat_template.jinja",
        "example": _example(source, config),
        "template_told": f"The hero is asked as it was trained: by the template that its checkpoint carries.{remote}",
    }


def _example(source: str, config: dict[str, Any]) -> str | None:
    for talk in (_TALK, _TALK[1:]):  # some templates refuse a system turn
        try:
            return ChatTemplate(source, constants_of(config)).render(talk, None, True, thinking=False)
        except TemplateFailed:
            continue
    return None


def _system(realm: Realm) -> dict[str, Any]:
    quest = _newest_quest(realm)
    if quest is None:
        return {"system": "", "system_told": "Nothing is trained yet, so there is no system prompt of training."}
    found = _system_turns(quest.path, quest.card)
    system, count = found.most_common(1)[0] if found else ("", 0)
    if 2 * count <= found.total():
        system = ""
    if not system:
        told = f"The rows of {quest.stem}, the newest quest, have none" + (" in common." if any(found) else ".")
    else:
        told = f"As in the rows of {quest.stem}, the newest quest."
    return {"system": system, "system_told": told}


def _newest_quest(realm: Realm) -> Quest | None:
    """The quest in training, else the one trained last."""
    row = realm.ledger.one(
        "SELECT id FROM quests WHERE state IN ('processing', 'recently_completed') ORDER BY updated DESC LIMIT 1"
    )
    try:
        return TrainingQueue(realm.paths, realm.ledger).find(row["id"]) if row else None
    except UserError:  # its file was taken away
        return None


def _system_turns(path: Path, card: dict[str, Any]) -> Counter[str]:
    """How often each system text begins one of the first rows; '' stands for none."""
    columns = (card.get("settings") or {}).get("columns") or {}
    form = next((form for form in FORMS if form.name == card.get("form")), None)
    try:
        rows = [row for _, _, row in islice(read_rows(path, form, columns), LOOKED_AT)] if form else []
    except OSError:  # moved just now
        rows = []
    talks = [row.messages for row in rows if isinstance(row, Conversation) and row.messages]
    return Counter(talk[0]["content"] if talk[0]["role"] == "system" else "" for talk in talks)
