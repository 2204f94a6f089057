"""A model's chat template, run as the untrusted program it is; knows nothing about tokens or training.

The environment is the one `transformers` gives to chat templates, so both render the same text. On top of its sandbox
every render has a budget, spent on loop rounds, calls and repetition, and a limit on its output: no template runs for
ever. What one filter does inside itself is not counted; against that, whoever renders a stranger's template for the
first time does so in a process with limits (the validator).
"""

import json
import threading
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

BUDGET = 300_000  # loop rounds and calls; a conversation of 512 turns needs some ten thousand
MAX_CHARACTERS = 64 << 20  # eight times the longest line that is read: JSON may be written with escapes


_DICT_METHODS = frozenset(dir(dict))


class TemplateFailed(Exception):
    """The template refused these messages, failed, or would not end."""


def template_source(folder: Path, config: dict[str, Any]) -> str | None:
    """The template of the model in `folder`: a file of its own, else in `config`, its tokenizer_config.json."""
    beside = folder / "chat_template.jinja"
    if beside.exists():
        return beside.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {each.get("name"): each.get("template") for each in template}.get("default")
    return template


def constants_of(config: dict[str, Any]) -> dict[str, str]:
    """The special tokens that a template may name, from a tokenizer_config.json."""
    named = {key: _content(value) for key, value in config.items() if key.endswith("_token")}
    return {key: token for key, token in named.items() if token}


def _content(value: Any) -> str | None:
    """A special token's text, given as text or as a description of the token."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


class ChatTemplate:
    """One compiled template. `constants` are what it may name besides the messages: `bos_token` and its kin."""

    def __init__(self, source: str, constants: dict[str, Any]):
        self.source = source
        self._constants = constants
        self._sandbox = _Sandbox()
        try:
            self._template = self._sandbox.from_string(_metered(self._sandbox.parse(source), self._sandbox))
        except Exception as problem:
            raise TemplateFailed(f"cannot be compiled: {problem}") from problem
        self._template.globals = dict(self._template.globals)  # a plain dict: jinja copies it for every render
        self._lock = threading.Lock()  # the budget belongs to one render at a time

    def render(self, messages: list[dict], tools: list[dict] | None, generation: bool, thinking: bool) -> str:
        """The text of `messages`, ending in the head of an assistant turn if `generation`."""
        with self._lock:
            self._sandbox.left = BUDGET
            try:
                return self._collect(self._template.generate(
                    self._constants, messages=messages, tools=tools, documents=None,
                    add_generation_prompt=generation, enable_thinking=thinking,
                ))  # fmt: skip
            except Exception as problem:  # a stranger's program may raise anything at all
                raise TemplateFailed(str(problem) or type(problem).__name__) from problem

    def _collect(self, pieces) -> str:
        written, length = [], 0
        for piece in pieces:
            written.append(piece)
            length += len(piece)
            if length > MAX_CHARACTERS:
                raise OverflowError(f"the template writes more than {MAX_CHARACTERS} characters")
        return "".join(written)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**"))

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
        self.left = BUDGET
        self.filters |= {"tojson": _tojson, _METER: _meter}
        self.globals |= {"raise_exception": _raise, "strftime_now": _now}
        self.globals |= {"dict": _Dict(), "namespace": _PublicNamespace}

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise OverflowError("the template does not come to an end")

    def getattr(self, obj, attribute: str):
        if type(obj) is dict and attribute not in _DICT_METHODS:  # most of what templates do, and all data: a short cut
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def call(self, context, obj, /, *args, **kwargs):
        self.spend(1)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context, operator: str, left, right):
        if operator == "**":
            self.spend(abs(int(right)))
        elif isinstance(left, Sequence) or isinstance(right, Sequence):
            self.spend(len(left) * right if isinstance(left, Sequence) else left * len(right))
        return super().call_binop(context, operator, left, right)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for masks made in another way; here it is only a scope."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class _Dict:
    """`dict(…)` for templates, without the class and its attributes."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


class _PublicNamespace(Namespace):
    """jinja's namespace, refusing names with which Python's inside could be reached."""

    def __init__(*args, **kwargs):  # like jinja's own: every keyword is free for the template, also `self`
        self, args = args[0], args[1:]
        Namespace.__init__(self)
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name, value):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace has no {name!r}")
        Namespace.__setitem__(self, name, value)


_METER = " metered"  # no template can name a filter with a space in it


@jinja2.pass_context  # and not the environment alone, or a constant would be paid for once, when compiled
def _meter(context, items):
    """`items`, once its length is paid for."""
    sandbox = context.environment
    if not hasattr(items, "__len__"):
        items = list(islice(items, sandbox.left + 1))
    sandbox.spend(len(items))
    return items


def _metered(tree: nodes.Template, sandbox: _Sandbox) -> nodes.Template:
    """The template with every loop's iterable passed through `_meter`."""
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, _METER, [], [], None, None, lineno=loop.lineno)
    return tree.set_environment(sandbox)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str):
    raise jinja2.exceptions.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
