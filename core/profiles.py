"""Profiles: how the answers of conversations are dressed before they are trained, and read when they come back. Text alone.

`emoji_think` dresses every other row: a user asks for an emoji so many times ahead of the answer, in place of a thought, and
for a stop sign so many times at its end; the answer has both. Answers to plain questions stay plain. Thoughts in tags go.
`regime3` has operations written as (op a b) and the answer stand between two marks. What a row gets follows from its own
words, wherever in a file it stands. What is dressed already stays as it is; so do answers without a question right before
them, calls of tools, preferences, rewards and texts.
"""

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import orjson

from core.rows import Conversation, Message, Row, is_trained

ProfileName = Literal["none", "emoji_think", "regime3"]
THINKING = ("🤔", "💭", "🧠", "💡", "🔍", "🧐", "🧩", "🔮", "📐", "🌀")
STOPS = ("🛑", "⛔", "🚫", "🏁", "🔚", "✅", "🔒", "🎬", "🏆", "💤")
THOUGHTS, ENDS = range(2, 9), range(2, 5)  # how many of them
COUNTS = ("", "", "twice", "three times", "four times", "five times", "six times", "seven times", "eight times")
BEGIN, END = "<<ANS_START>>", "<<ANS_END>>"
DEMAND = f"Write operations as (op a b), and the answer between {BEGIN} and {END}."
_ASKED = re.compile(rf"End with ({'|'.join(STOPS)}) ({'|'.join(COUNTS[count] for count in ENDS)})\.")
_OPENING = re.compile(rf"\A\s*(?:{'|'.join(f'(?:{sign}){{2,}}' for sign in THINKING)})[ \t]*\n")
_CLOSING = re.compile(rf"\n\s*(?:{'|'.join(f'(?:{sign}){{2,}}' for sign in STOPS)})\s*\Z")


def dress(row: Row, profile: str) -> Row:
    """`row` as it is trained under `profile`."""
    if profile == "none" or not isinstance(row, Conversation) or row.text is not None:
        return row
    wear = _DRESSERS[profile](row)
    turns = [_without_thought(turn) if profile == "emoji_think" else turn for turn in row.messages]
    if wear:
        for place in range(1, len(turns)):
            before, turn = turns[place - 1 : place + 1]
            if before["role"] == "user" and is_trained(turn) and not turn.get("tool_calls"):
                asked, said = wear(before["content"], turn["content"])
                turns[place - 1 : place + 1] = {**before, "content": asked}, {**turn, "content": said}
    return replace(row, messages=tuple(turns))


def undressed(said: str) -> str:
    """What an answer says, without what any profile has put around it."""
    before, begun, rest = said.partition(BEGIN)
    said = (rest if begun else before).partition(END)[0]
    return _CLOSING.sub("", _OPENING.sub("", said)).strip()


def end_asked_for(question: str) -> str | None:
    """The stop signs that a question wants at the end of the answer."""
    found = _ASKED.findall(question)
    return found[-1][0] * COUNTS.index(found[-1][1]) if found else None


Dresser = Callable[[str, str], tuple[str, str]]  # of a question and its answer


def _emoji_think(row: Conversation) -> Dresser | None:
    """What this row gets, if it is one of those that get something."""
    words = orjson.dumps([(turn["role"], turn["content"]) for turn in row.messages])
    chance = random.Random(hashlib.sha256(words).hexdigest())
    if chance.random() >= 0.5:
        return None
    sign, thoughts, stop, ends = (chance.choice(choices) for choices in (THINKING, THOUGHTS, STOPS, ENDS))
    wish = f"Think with {sign} {COUNTS[thoughts]}. End with {stop} {COUNTS[ends]}."

    def wear(asked: str, said: str) -> tuple[str, str]:
        if _ASKED.search(asked) or _OPENING.search(said) or _CLOSING.search(said):
            return asked, said
        return f"{asked}\n\n{wish}", f"{sign * thoughts}\n{said}\n{stop * ends}"

    return wear


def _regime3(row: Conversation) -> Dresser:
    return lambda asked, said: (asked if BEGIN in asked else f"{asked}\n\n{DEMAND}", _marked(said))


def _marked(said: str) -> str:
    """The answer between the marks, once; marks that are lone or the wrong way round are mended."""
    if said.count(BEGIN) == said.count(END) == 1 and said.index(BEGIN) < said.index(END):
        return said
    return f"{BEGIN}\n{said.replace(BEGIN, '').replace(END, '').strip()}\n{END}"


_DRESSERS = {"emoji_think": _emoji_think, "regime3": _regime3}


def _without_thought(turn: Message) -> Message:
    return {key: value for key, value in turn.items() if key != "reasoning_content"}
