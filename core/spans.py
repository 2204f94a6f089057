"""From conversations to spans of text, trained or not, by the rules of `rendering`; knows nothing about token ids.

Only this module asks the template for text. What it learns about a turn it learns by rendering with and without it, so
it serves any template and reads none.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from core.chat_template import ChatTemplate, TemplateFailed
from core.rows import BadRow, Conversation, Message, is_trained, text

EMPTY_THOUGHT = re.compile(r"\s*(?:<think>)?\s*</think>(?:\n\n)?")
MARKS = range(0xE000, 0xF900)  # private use: the first one that a row does not contain encloses what is concealed in it
SEAM_HEAD = re.compile(r"\s{0,16}\S{0,8}")


@dataclass(slots=True)
class Span:
    """Text that is encoded by itself; `spelled`: a special token's name, to be encoded letter by letter."""

    text: str
    trained: bool
    spelled: bool = False
    ids: Sequence[int] | None = None


Script = list[Span]  # one sequence to be


class SpanWriter:
    """Writes scripts for one template. `is_seam(left, right)`: whether a cut between them changes no token."""

    def __init__(self, template: ChatTemplate, specials: list[str], is_seam: Callable[[str, str], bool]):
        self._template = template
        self._specials = sorted(specials, key=len, reverse=True)  # the pattern prefers a token to one it begins with
        self._special = re.compile(f"({'|'.join(map(re.escape, self._specials))})" if specials else "((?!))")
        escaped = (re.escape(orjson.dumps(special)[1:-1]) for special in self._specials)
        self._special_in_json = re.compile(b"|".join(escaped) if specials else b"(?!)")
        self._is_seam = is_seam
        self._shows_reasoning = True
        self.end_of_turn = self._probe()

    def scripts(self, conversation: Conversation) -> list[Script]:
        """The sequences of a conversation, each with a trained answer at its end. Raises BadRow."""
        if conversation.text is not None:
            return [self._apart(self._special.split(conversation.text), True)]
        messages, tools, mark = self._shown(conversation)
        scripts: list[Script] = []
        last: tuple[str, str, int] | None = (
            None  # of the newest script, if it may go on: prompt, answer, its trained end
        )
        whole = conversation.whole
        for place, turn in enumerate(conversation.messages):
            if not is_trained(turn):
                whole = whole and turn["role"] != "assistant"
                continue
            prompt, answer = self._turn(messages, tools, place)
            before = prompt
            if last and prompt.startswith(last[0]) and prompt.startswith(last[1], len(last[0])):
                before = prompt[len(last[0]) + last[2] :]
            else:
                whole = whole and not scripts  # what an earlier sequence shows is learned there
                scripts.append([])
            begin, end = self._bounds(answer, "reasoning_content" in messages[place])
            for words, trained in ((before, whole), (answer[:begin], whole), (answer[begin:end], True)):
                scripts[-1] += self._split(words, trained, mark)
            whole = conversation.whole
            learned = prompt[-32:] + answer[max(end - 32, 0) : end]
            goes_on = not (mark or begin) and self._seam(prompt, answer) and self._seam(learned, answer[end:])
            last = (prompt, answer, end) if goes_on else None
        return scripts

    def prompt(self, conversation: Conversation, thinking: bool) -> Script:
        """What inference is given to answer the conversation. Raises BadRow."""
        messages, tools, mark = self._shown(conversation)
        return self._split(self._write(messages, tools, True, thinking), False, mark)

    def _turn(self, messages: list[Message], tools: list | None, place: int) -> tuple[str, str]:
        """What inference is given for the assistant turn at `place`, and what the template writes after it."""
        turn = messages[place]
        thinking = "reasoning_content" in turn
        prompt = given = self._write(messages[:place], tools, True, thinking)
        full = self._write(messages[: place + 1], tools, False, thinking)
        if not thinking and not full.startswith(given):  # then the prompt may prefill a think block that history omits
            given = self._write(messages[:place], tools, True, True)
        if not full.startswith(given):
            raise BadRow("messages", "do not begin, in the chat template, with their own prompt", turn["content"])
        answer = full[len(given) :]
        if turn.get("tool_calls") and turn["tool_calls"][0]["function"]["name"] not in answer:
            raise BadRow("messages", "have tool calls, which the chat template does not show")
        return (prompt if prompt.startswith(given) else given), answer

    def _bounds(self, answer: str, thinking: bool) -> tuple[int, int]:
        """Where in an answer the trained text begins and ends."""
        empty = None if thinking else EMPTY_THOUGHT.match(answer)
        end = len(answer)
        for special in self._special.finditer(answer):
            end = special.end()
        return (empty.end() if empty else 0), end

    def _seam(self, left: str, right: str) -> bool:
        """`is_seam` for short texts around the cut, which are often the same; tokens end at a special token anyway."""
        near = left[-32:]
        begins = [special.start() for special in self._special.finditer(near)] or [-16]
        return self._is_seam(near[begins[-1] :], SEAM_HEAD.match(right)[0])

    def _write(self, messages: list[Message], tools: list | None, generation: bool, thinking: bool) -> str:
        try:
            return self._template.render(messages, tools, generation, thinking)
        except TemplateFailed as problem:
            raise BadRow("messages", f"the chat template refuses them: {problem}") from None

    def _probe(self) -> str | None:
        """Learn from a tiny conversation whether the template shows reasoning, and what ends a turn."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        try:
            _, answer = self._turn(turns, None, 1)
            thoughtful = [turns[0], {**turns[1], "reasoning_content": "because"}]
            self._shows_reasoning = "because" in self._write(thoughtful, None, False, True)
        except BadRow as problem:
            raise TemplateFailed(f"fails on a question and an answer: {problem.reason}") from None
        return next(reversed(self._special.findall(answer)), None)

    # What the template is shown

    def _shown(self, conversation: Conversation) -> tuple[list[Message], list | None, str]:
        """Messages and tools for the template, and the mark that encloses concealed special tokens, if any."""
        messages, tools, mark = list(conversation.messages), list(conversation.tools or ()), ""
        if self._special_in_json.search(orjson.dumps((messages, tools))):  # faster than a look into every text
            written = "".join(_strings((messages, tools)))
            mark = next(chr(code) for code in MARKS if chr(code) not in written)
            messages, tools = self._conceal(messages, mark), self._conceal(tools, mark)
        return [self._message(message) for message in messages], tools or None, mark

    def _message(self, message: Message) -> Message:
        shown = {key: value for key, value in message.items() if value is not None and key != "train"}
        if isinstance(shown.get("content"), list):
            shown["content"] = text(shown["content"], "content", may_be_empty=True)
        if thought := shown.get("reasoning_content"):
            if self._shows_reasoning:
                shown["thinking"] = thought  # the name under which some templates read it
            else:
                shown["content"] = f"<think>\n{thought}\n</think>\n\n{shown.get('content', '')}"
        return shown

    def _conceal(self, value: Any, mark: str) -> Any:
        """`value` with every special token that any text in it names replaced by its marked number."""
        match value:
            case str():
                return self._special.sub(lambda found: f"{mark}{self._specials.index(found[0])}{mark}", value)
            case dict():
                return {self._conceal(key, mark): self._conceal(inner, mark) for key, inner in value.items()}
            case list() | tuple():
                return [self._conceal(inner, mark) for inner in value]
        return value

    def _split(self, words: str, trained: bool, mark: str) -> Script:
        """Rendered text as spans, concealed tokens spelled."""
        if not mark:
            return [Span(words, trained)] if words else []
        parts = re.split(f"{mark}(\\d+){mark}", words)
        parts[1::2] = [self._specials[int(number)] for number in parts[1::2]]
        return self._apart(parts, trained)

    @staticmethod
    def _apart(parts: list[str], trained: bool) -> Script:
        """Spans of text and of spelled special tokens, in turn."""
        return [Span(part, trained, spelled=bool(odd % 2)) for odd, part in enumerate(parts) if part]


def _strings(value: Any) -> Iterable[str]:
    """Every text in `value`, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
