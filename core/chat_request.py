"""A request for chat in OpenAI's form, checked: messages in the form of training rows, and how to draw the answer.

It knows nothing about HTTP, models or tokens. What cannot be honoured is refused, never ignored; what has no meaning
here (`user`, `metadata` and their kin) may stand there.
"""

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UserError
from core.rows import Message, check_depth, read_tools, read_turns

HERO, CHAMPION = "hero", "champion"
USUAL_TOKENS = 512  # of an answer, where the request names no number
MOST_TOKENS = 32_768
FIXED = {"n": (1,), "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},), "functions": ([],)}
CHOICES = ("auto", "none")  # of whether a tool is called: a hero can be asked for a call, but not made to write one
LONGEST_MODEL = 200  # characters of a model's name


class _Fields(BaseModel):
    """The numbers of a request; messages and tools are read as rows are."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str = Field(HERO, min_length=1, max_length=LONGEST_MODEL)
    stream: bool | None = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    stop: str | list[str] | None = Field(None, max_length=256)
    stream_options: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; at temperature 0 it is the most likely one."""

    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class ChatRequest:
    """What somebody wants answered."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[dict, ...] | None = None
    one_call: bool = False  # of a tool ends the answer
    thinking: bool = False
    stream: bool = False
    usage: bool = False  # told at the end of a stream
    most: int = USUAL_TOKENS
    stops: tuple[str, ...] = ()
    sampling: Sampling = Sampling()


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises UserError."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise UserError(f"The body is not JSON: {problem}") from None
    if not isinstance(values, dict):
        raise UserError("The body must be one JSON object with `model` and `messages`.")
    check_depth(values, "body")
    return values


def model_of(values: dict[str, Any]) -> str:
    """The model that a request names, the hero where it names none."""
    name = values.get("model", HERO)
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_MODEL:
        raise UserError(f"model: must be a name of 1 to {LONGEST_MODEL} letters; `GET /v1/models` lists them")
    return name


def read_request(values: dict[str, Any]) -> ChatRequest:
    """`values` checked. Raises UserError naming field, value and remedy."""
    for name, allowed in FIXED.items():
        if values.get(name) is not None and values[name] not in allowed:
            raise UserError(f"{name}: is not supported by the local Oracle; leave it out")
    kind = values.get("response_format")
    if kind is not None and not (isinstance(kind, dict) and kind.get("type") == "text"):
        raise UserError('response_format: the local Oracle answers in plain text; leave it out, or {"type": "text"}')
    try:
        given = _Fields.model_validate(values)
    except ValidationError as problem:
        raise UserError("; ".join(_mistake(error) for error in problem.errors())) from None
    if given.tool_choice not in (None, *CHOICES):
        raise UserError(
            f"tool_choice: the local Oracle knows {' and '.join(CHOICES)}; leave it out, or take one of these"
        )
    turns = read_turns(values.get("messages"), "messages")
    if turns[-1]["role"] not in ("user", "tool"):
        raise UserError(f"messages: the last one is {turns[-1]['role']}'s; it must be user's, which is then answered")
    stops = (given.stop,) if isinstance(given.stop, str) else tuple(given.stop or ())
    names = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed")
    told = {name: value for name in names if (value := getattr(given, name)) is not None}
    return ChatRequest(
        given.model,
        tuple(turns),
        None if given.tool_choice == "none" else read_tools(values.get("tools")),
        given.parallel_tool_calls is False,
        (given.chat_template_kwargs or {}).get("enable_thinking") is True,
        bool(given.stream),
        (given.stream_options or {}).get("include_usage") is True,
        given.max_completion_tokens or given.max_tokens or USUAL_TOKENS,
        tuple(filter(None, stops)),
        Sampling(**told),
    )


def _mistake(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}"
