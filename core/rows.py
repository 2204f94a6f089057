"""The normal form of a training row and the checks every turn must pass; knows nothing about files, forms or tokens.

A message is a dict with `role` (system, user, assistant, tool) and `content` (text). An assistant's may also have
`reasoning_content`, `tool_calls` (arguments as objects) and `train: False`, which makes it context; a tool's may have
`name` and `tool_call_id`. Nothing else of the row survives, so what a template sees has one shape.
"""

from dataclasses import dataclass, replace
from typing import Any

import orjson

from core.errors import UserError, nearest

MAX_TURNS = 512  # every trained turn is rendered after all turns before it, so work grows with the square
MAX_DEPTH = 64
MEND = "mend the row, or drop it"
ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_call": "call",
}  # fmt: skip
MAY_FOLLOW = {
    None: ("system", "user"), "system": ("user",), "user": ("assistant",),
    "assistant": ("user", "tool"), "tool": ("tool", "assistant"),
}  # fmt: skip
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}

Message = dict[str, Any]
Turns = tuple[Message, ...]


class BadRow(UserError):
    """One row that cannot be trained: which field, why, the value (shortened) and what to do about it."""

    def __init__(self, field: str, reason: str, value: Any = None, remedy: str = ""):
        self.field, self.reason, self.remedy = field, reason, remedy or MEND
        self.value = None if value is None else _shorten(value)
        super().__init__(field, reason, self.value, self.remedy)

    def __str__(self) -> str:
        value = "" if self.value is None else f", found {self.value!r}"
        return f"{self.field}: {self.reason}{value}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages whose assistant turns are trained, save those with `train: False`, and, of a `whole` one, what stands between
    them; or plain `text`, trained whole."""

    messages: Turns = ()
    tools: tuple[dict, ...] | None = None
    text: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, the first the better. The prompt ends where they begin to differ."""

    prompt: Turns
    chosen: Turns
    rejected: Turns
    tools: tuple[dict, ...] | None = None

    @property
    def sides(self) -> tuple[Conversation, Conversation]:
        prompt = context(self.prompt)
        return Conversation(prompt + self.chosen, self.tools), Conversation(prompt + self.rejected, self.tools)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A conversation whose answer (what follows the last user turn) was judged good or bad, or was given a reward."""

    conversation: Conversation
    label: bool | None = None
    reward: float | None = None

    @property
    def value(self) -> float:
        """The reward; 1 for a good answer and -1 for a bad one."""
        return self.reward if self.label is None else 1.0 if self.label else -1.0

    @property
    def asked(self) -> Turns:
        """What the answer answers: all turns up to and with the last of the user."""
        turns = self.conversation.messages
        return turns[: _after_the_user(turns)]


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt to be answered by the hero itself, and what a grader needs to judge that answer. `response`: the right answer
    as it would be taught, work included."""

    prompt: Turns
    answer: str
    skill: str | None = None
    grader: str | None = None
    level: int | None = None
    tools: tuple[dict, ...] | None = None
    response: str | None = None


Row = Conversation | Preference | Verdict | Problem


def prompts_of(row: Row) -> list[str]:
    """What the row asks: the words of its users' turns."""
    if isinstance(row, Verdict):
        row = row.conversation
    turns = row.messages if isinstance(row, Conversation) else row.prompt
    return [turn["content"] for turn in turns if turn["role"] == "user"]


def thinking(row: Row) -> str | None:
    """Whether the learned answers come with reasoning: `learned`, `off`, `mixed`; None where there are no turns."""
    if not isinstance(row, Conversation) or row.text is not None:
        return None
    found = {bool(turn.get("reasoning_content")) for turn in row.messages if is_trained(turn)}
    return "mixed" if len(found) == 2 else "learned" if True in found else "off"


def context(turns) -> Turns:
    """The same turns with no assistant turn trained."""
    return tuple({**turn, "train": False} if turn["role"] == "assistant" else turn for turn in turns)


def learning(row: Row, learned: str) -> Row:
    """`row`, of which an `assistant`'s turns, the `completion` or `all` is trained."""
    if learned == "assistant" or not isinstance(row, Conversation) or row.text is not None:
        return row
    if learned == "all":
        return replace(row, whole=True)
    end = _after_the_user(row.messages)
    return replace(row, messages=context(row.messages[:end]) + row.messages[end:])


def _after_the_user(turns: Turns) -> int:
    """How many turns there are up to and with the last of the user; of none, where no user speaks."""
    return max((place for place, turn in enumerate(turns, 1) if turn["role"] == "user"), default=0)


def is_trained(turn: Message) -> bool:
    return turn["role"] == "assistant" and turn.get("train") is not False


def read_turns(value: Any, field: str, before=()) -> list[Message]:
    """`before` and then the turns in `value`, a list of {role, content} or {from, value}, in an order that can be."""
    if not isinstance(value, list) or not value:
        raise BadRow(
            field, f"is {_kind(value)}, not a list of messages", value, 'write [{"role": "user", "content": "…"}, …]'
        )
    if len(value) > MAX_TURNS:
        raise BadRow(field, f"has {len(value)} turns", None, f"split the row: at most {MAX_TURNS} turns are read")
    turns = list(before)
    for index, item in enumerate(value):
        where = f"{field}[{index}]"
        turn = _read_turn(item, where)
        if turn["role"] == "call":  # ShareGPT gives every call a turn; one right after a reply belongs to that reply
            calls = read_calls(_json(turn["content"], f"{where}.value"), f"{where}.value")
            if turns and turns[-1]["role"] == "assistant":
                turns[-1] = {**turns[-1], "tool_calls": [*turns[-1].get("tool_calls", ()), *calls]}
                continue
            turn = {"role": "assistant", "content": "", "tool_calls": calls}
        append(turns, turn, where)
    return turns


def append(turns: list[Message], turn: Message, where: str) -> None:
    """Add `turn`, if its role may come now."""
    role, previous = turn["role"], turns[-1]["role"] if turns else None
    if role not in MAY_FOLLOW[previous]:
        if role == "system":
            reason, remedy = "is a system turn that is not the first turn", "join the system texts into one first turn"
        elif role == previous:
            reason, remedy = f"is the second of two {role} turns in a row", "join them, or drop one"
        else:
            reason = f"is {role} after {previous}" if previous else f"is {role}, as the first turn"
            remedy = f"here may come: {' or '.join(MAY_FOLLOW[previous])}"
        raise BadRow(where, reason, turn["content"], remedy)
    turns.append(turn)


def say(role: str, value: Any, field: str) -> Message:
    """A turn from bare text."""
    if role != "assistant":
        return {"role": role, "content": text(value, field)}
    return _assistant({"content": value}, "content", field, field)


def text(value: Any, field: str, may_be_empty: bool = False) -> str:
    """`value` as text: a string, or a list of text parts."""
    if isinstance(value, list) and value:
        value = "".join(_part(part, f"{field}[{index}]") for index, part in enumerate(value))
    if not isinstance(value, str):
        reason, remedy = (
            ("is missing", "add it") if value is None else (f"is {_kind(value)}, not text", "write it as text")
        )
        raise BadRow(field, reason, value, remedy)
    if not value.isascii():
        encodable(value, field)
    if not may_be_empty and (not value or value.isspace()):
        raise BadRow(field, "is empty", value, "fill it, or drop the row")
    return value


def encodable(value: Any, field: str) -> None:
    """Refuse half of a surrogate pair, which no tokenizer can encode, wherever in `value` it hides."""
    try:
        orjson.dumps(value)
    except TypeError as problem:
        raise BadRow(field, f"cannot be written as UTF-8 JSON ({problem})", value) from None


def check_depth(value: Any, field: str) -> None:
    """Refuse nesting that would exhaust the stack of whatever walks it later."""
    level = [value]
    for _ in range(MAX_DEPTH):
        nested = (each for each in level if isinstance(each, dict | list))
        level = [inner for outer in nested for inner in (outer.values() if isinstance(outer, dict) else outer)]
        if not level:
            return
    if any(isinstance(each, dict | list) for each in level):
        raise BadRow(field, f"is nested more than {MAX_DEPTH} deep", None, "flatten it")


def read_calls(value: Any, field: str) -> list[dict]:
    """Tool calls, nested under `function` or flat, arguments as object or as JSON text."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise BadRow(field, f"is {_kind(value)}, not a list of tool calls", value)
    return [_read_call(call, f"{field}[{index}]") for index, call in enumerate(value)]


def read_tools(value: Any, field: str = "tools") -> tuple[dict, ...] | None:
    """Tool descriptions, given as a list or as JSON text, each in OpenAI's {type, function} wrapping."""
    if isinstance(value, str) and value.strip():
        value = _json(value, field)
    if not value:
        return None
    if not isinstance(value, list):
        raise BadRow(field, f"is {_kind(value)}, not a list of tools", value)
    encodable(value, field)
    tools = []
    for index, tool in enumerate(value):
        bare = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(bare, dict) or not isinstance(bare.get("name"), str):
            raise BadRow(f"{field}[{index}]", "is not a tool with a name", tool)
        tools.append(tool if "function" in tool else {"type": "function", "function": tool})
    return tuple(tools)


def _read_turn(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise BadRow(where, f"is {_kind(item)}, not a message", item)
    role_key = "role" if "role" in item else "from"
    said_key = "value" if role_key == "from" and "content" not in item else "content"
    name = item.get(role_key)
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        reason = "is missing" if name is None else f"is not a known role{nearest(str(name), ROLES)}"
        raise BadRow(f"{where}.{role_key}", reason, name, f"known: {', '.join(ROLES)}")
    if role == "assistant":
        return _assistant(item, said_key, where, f"{where}.{said_key}")
    turn = {"role": role, "content": text(item.get(said_key), f"{where}.{said_key}", role in ("system", "tool"))}
    if role == "tool":
        turn |= {key: text(item[key], f"{where}.{key}") for key in ("name", "tool_call_id") if item.get(key)}
    return turn


def _assistant(item: dict, said_key: str, where: str, field: str) -> Message:
    calls, said = item.get("tool_calls"), item.get(said_key)
    said = "" if said is None and calls else text(said, field, may_be_empty=True)
    reasoning = next((key for key in ("reasoning_content", "reasoning", "thinking") if item.get(key)), None)
    thought = text(item[reasoning], f"{where}.{reasoning}", may_be_empty=True) if reasoning else ""
    if not reasoning and "<think>" in said:
        thought, said = _split_thought(said)
    if not calls and (not said or said.isspace()):
        raise BadRow(field, "is empty", said, "an assistant turn needs words or tool calls")
    turn: Message = {"role": "assistant", "content": said}
    if thought and not thought.isspace():
        turn["reasoning_content"] = thought
    if calls:
        turn["tool_calls"] = read_calls(calls, f"{where}.tool_calls")
    if not _wanted(item, where):
        turn["train"] = False
    return turn


def _split_thought(said: str) -> tuple[str, str]:
    """(reasoning, rest) of an answer that begins with `<think>…</think>`; all of any other is rest."""
    opened = said.lstrip()
    if not opened.startswith("<think>") or "</think>" not in opened:
        return "", said
    thought, _, rest = opened.removeprefix("<think>").partition("</think>")
    return thought.strip("\n"), rest.lstrip("\n")


def _wanted(item: dict, where: str) -> bool:
    """Whether a turn is to be trained: `train`, or OpenAI's `weight` of 0 or 1."""
    key = "train" if item.get("train") is not None else "weight"
    value = item.get(key)
    if value is not None and value not in (True, False):
        raise BadRow(f"{where}.{key}", "is neither true nor false", value)
    return value is None or bool(value)


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") != "text":
        raise BadRow(where, "is not a text part", part, "only text can be trained")
    return text(part.get("text"), f"{where}.text", may_be_empty=True)


def _read_call(call: Any, where: str) -> dict:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRow(where, "is not a tool call with a function name", call)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _json(arguments, f"{where}.arguments") if arguments.strip() else {}
    if not isinstance(arguments, dict | None):
        raise BadRow(f"{where}.arguments", f"is {_kind(arguments)}, not an object", arguments)
    encodable(call, where)
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return named | {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}


def _json(source: str, field: str) -> Any:
    try:
        value = orjson.loads(source)
    except orjson.JSONDecodeError as problem:
        raise BadRow(field, f"is not JSON ({problem})", source, "write it as JSON, or drop the row") from None
    if source.count("{") + source.count("[") > MAX_DEPTH:  # brackets, also those inside strings, bound the depth
        check_depth(value, field)
    return value


def _kind(value: Any) -> str:
    return "missing" if value is None else "empty" if value == [] else _KINDS.get(type(value), type(value).__name__)


def _shorten(value: Any) -> str:
    if isinstance(value, bytes):
        value = value[:81].decode("utf-8", "replace")
    shown = value[:81] if isinstance(value, str) else repr(value)
    shown = shown.encode("utf-8", "replace").decode()
    return shown if len(shown) <= 80 else shown[:79] + "…"
