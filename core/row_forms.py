"""The forms a row may come in, each read into the normal form; knows nothing about files, votes or tokens.

All forms are siblings of one shape. To add one: write its reader and give it a line in `FORMS`, above every form whose
fields it also has.

A `correction` is what the Mirror's sparring writes: `messages` with the field `sparring`, by which a quest is told that is to
be trained, not sparred again (core/corrections.py).
"""

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from core.graders import OWN, GraderFailed, Task, graders, mark
from core.rows import (
    BadRow,
    Conversation,
    Message,
    Preference,
    Problem,
    Row,
    Verdict,
    append,
    context,
    is_trained,
    read_tools,
    read_turns,
    say,
    text,
)
from core.skills import skills

MAX_REWARD = 1e6  # what is compared is held in float32, and squared


@dataclass(frozen=True, slots=True)
class Form:
    """A row form: the sets of fields it can be told by, the school it is for, and its reader."""

    name: str
    school: str
    needs: tuple[frozenset[str], ...]
    read: Callable[[dict[str, Any]], Row]

    def matches(self, keys: Set[str]) -> bool:
        return any(need <= keys for need in self.needs)

    def missing(self, keys: Set[str]) -> list[str]:
        """The fewest fields that would make `keys` match."""
        return sorted(min((need - keys for need in self.needs), key=len))


def _messages(row: dict) -> Conversation:
    return _trained(read_turns(row["messages"], "messages", _opening(row)), "messages", row)


def _correction(row: dict) -> Conversation:
    if row["sparring"] not in SPARRING:
        raise BadRow("sparring", f"is none of {', '.join(SPARRING)}", row["sparring"])
    return _messages(row)


def _conversations(row: dict) -> Conversation:
    return _trained(read_turns(row["conversations"], "conversations", _opening(row)), "conversations", row)


def _alpaca(row: dict) -> Conversation:
    turns = _opening(row)
    for index, pair in enumerate(_list(row, "history")):
        where = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow(where, "is not a pair of instruction and answer", pair)
        turns += [say("user", pair[0], f"{where}[0]"), say("assistant", pair[1], f"{where}[1]")]
    asked = text(row["instruction"], "instruction")
    given = text(row.get("input") or "", "input", may_be_empty=True)
    asked = f"{asked}\n{given}" if given else asked
    turns += [{"role": "user", "content": asked}, say("assistant", row["output"], "output")]
    return _trained(turns, "output", row)


def _completion(row: dict) -> Conversation:
    answer = "completion" if row.get("completion") is not None else "response"
    turns = _spoken(row[answer], answer, "assistant", context(_prompt(row)))
    return _trained(turns, answer, row)


def _question(row: dict) -> Conversation:
    turns = [*_opening(row), say("user", row["question"], "question"), say("assistant", row["answer"], "answer")]
    return _trained(turns, "answer", row)


def _text(row: dict) -> Conversation:
    return Conversation(text=text(row["text"], "text"))


def _preference(row: dict) -> Preference:
    chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
    if chosen == rejected:
        raise BadRow("rejected", "is the same as chosen", rejected[-1]["content"], "drop the row: it prefers nothing")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared or not (is_trained(chosen[shared]) and is_trained(rejected[shared])):
        raise BadRow("rejected", "does not share its prompt with chosen", rejected[shared]["content"],
                     "both must begin with the same turns and part at an assistant turn")  # fmt: skip
    tools = read_tools(row.get("tools"))
    return Preference(tuple(chosen[:shared]), tuple(chosen[shared:]), tuple(rejected[shared:]), tools)


def _labelled(row: dict) -> Verdict:
    if row["label"] not in (True, False):
        raise BadRow("label", "is neither true nor false", row["label"])
    return Verdict(_answered(row), label=bool(row["label"]))


def _rewarded(row: dict) -> Verdict:
    reward = row["reward"]
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
        raise BadRow("reward", "is not a number", reward)
    if abs(reward) > MAX_REWARD:
        raise BadRow("reward", "is beyond a million", reward, "scale the rewards of the whole file: they are compared")
    return Verdict(_answered(row), reward=float(reward))


def _problem(row: dict) -> Problem:
    prompt = _prompt(row)
    if prompt[-1]["role"] == "assistant":
        raise BadRow("prompt", "ends with an assistant turn", prompt[-1]["content"], "end it with the question")
    answer, level = row["answer"], row.get("level")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if level is not None and (isinstance(level, bool) or not isinstance(level, int)):
        raise BadRow("level", "is not a whole number", level)
    names, answer = _marked_by(row), text(answer, "answer")
    _check_answer(Task(prompt[-1]["content"], answer, level=level, **names))
    if row.get("response") is not None:
        names["response"] = text(row["response"], "response")
    return Problem(prompt, answer, level=level, tools=read_tools(row.get("tools")), **names)


def _asked(row: dict) -> Problem:
    prompt = _prompt(row)
    if prompt[-1]["role"] == "assistant":
        raise BadRow("prompt", "ends with an assistant turn", prompt[-1]["content"], "end it with the question")
    return Problem(prompt, "", tools=read_tools(row.get("tools")))


def _check_answer(task: Task) -> None:
    """Refuse what the realm's own graders could never call right. Others are not asked: they may be slow."""
    if task.grader and task.grader not in OWN:
        return
    try:
        understood = mark(task, task.answer) == 1.0 or task.skill
    except GraderFailed:
        understood = False
    if not understood:
        named = f"grader {task.grader}" if task.grader else f"skill {task.skill}"
        raise BadRow("answer", f"is nothing that the {named} understands", task.answer)


def _marked_by(row: dict) -> dict[str, str]:
    """Which skill or grader marks the answers to a problem."""
    names = {key: text(row[key], key) for key in ("skill", "grader") if row.get(key) is not None}
    if len(names) == 2:
        raise BadRow(
            "grader", "stands beside a skill, which has a grader of its own", names["grader"], "keep one of the two"
        )
    ((key, name),) = names.items()
    known = skills() if key == "skill" else graders()
    if (name.upper() if key == "skill" else name) not in known:
        raise BadRow(key, f"is no {key} that the realm has", name, f"known: {', '.join(known)}")
    return names


def _needs(*alternatives: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(fields.split()) for fields in alternatives)


SPARRING = ("spot", "correct", "confirm")
_CHATS = ("messages", "conversations", "prompt completion", "prompt response")

FORMS = (
    Form("preference", "judge", _needs("chosen rejected"), _preference),
    Form("label", "judge", _needs(*(f"label {chat}" for chat in _CHATS)), _labelled),
    Form("reward", "champion", _needs(*(f"reward {chat}" for chat in _CHATS)), _rewarded),
    Form("problem", "champion", _needs("prompt answer skill", "prompt answer grader"), _problem),
    Form("correction", "mirror", _needs("messages sparring"), _correction),
    Form("messages", "scribe", _needs("messages"), _messages),
    Form("conversations", "scribe", _needs("conversations"), _conversations),
    Form("alpaca", "scribe", _needs("instruction output"), _alpaca),
    Form("completion", "scribe", _needs("prompt completion", "prompt response"), _completion),
    Form("question", "scribe", _needs("question answer"), _question),
    Form("text", "scribe", _needs("text"), _text),
)
# A question alone, for a teacher that answers; told by no vote, since it would hide that an answer is missing.
ASKED = Form("prompt", "whisper", _needs("prompt"), _asked)
_CHAT_READERS = {"messages": _messages, "conversations": _conversations}


def _opening(row: dict) -> list[Message]:
    """The row's own system text as a first turn; an empty one counts as none, as exporters fill it in."""
    system = row.get("system")
    return [say("system", system, "system")] if system else []


def _spoken(value: Any, field: str, role: str, before=()) -> list[Message]:
    """`before` and what a field says: messages, or bare text that is one turn of `role`."""
    if isinstance(value, list):
        return read_turns(value, field, before)
    turns = list(before)
    append(turns, say(role, value, field), field)
    return turns


def _prompt(row: dict) -> tuple[Message, ...]:
    return tuple(_spoken(row["prompt"], "prompt", "user", _opening(row)))


def _side(row: dict, field: str) -> list[Message]:
    """The whole conversation that ends in one of the two answers."""
    value = row[field]
    answer = [value] if isinstance(value, dict) else value
    first = answer[0] if isinstance(answer, list) and answer and isinstance(answer[0], dict) else {}
    if first.get("role", first.get("from")) in ("system", "developer", "user", "human"):
        turns = read_turns(answer, field, _opening(row))  # answers that repeat their prompt
    else:
        asked = next((key for key in ("prompt", "conversations", "messages") if row.get(key) is not None), None)
        if asked is None:
            raise BadRow("prompt", "is missing", None, "add it, or give chosen and rejected as whole conversations")
        turns = _spoken(answer, field, "assistant", context(_spoken(row[asked], asked, "user", _opening(row))))
    return _ended(turns, field)


def _answered(row: dict) -> Conversation:
    """The conversation beside a label or reward, which speaks of the answer to the last user turn alone."""
    read = next((read for field, read in _CHAT_READERS.items() if row.get(field) is not None), _completion)
    whole = read(row)
    last = max(index for index, turn in enumerate(whole.messages) if turn["role"] == "user") + 1
    return Conversation(context(whole.messages[:last]) + whole.messages[last:], whole.tools)


def _trained(turns: list[Message], field: str, row: dict) -> Conversation:
    if not any(is_trained(turn) for turn in _ended(turns, field)):
        raise BadRow(field, "has no assistant turn to train", None, "every one has train: false")
    return Conversation(tuple(turns), read_tools(row.get("tools")))


def _ended(turns: list[Message], field: str) -> list[Message]:
    if turns[-1]["role"] != "assistant":
        last = turns[-1]
        raise BadRow(field, f"ends with a {last['role']} turn", last["content"], "end it with the assistant's answer")
    return turns


def _list(row: dict, field: str) -> list:
    value = row.get(field)
    if value is not None and not isinstance(value, list):
        raise BadRow(field, "is not a list", value)
    return value or []
