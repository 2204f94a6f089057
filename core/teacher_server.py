"""Asks a teacher on an OpenAI-compatible server for its answers to a quest's rows, several at a time. It trains nothing.

Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947): a student imitates what its teacher says. What came is kept
at once (core/teacher_answers.py), so that whoever asks again asks for the rest. Transient failures are tried again, later
and later; everything else ends the asking, with the line that was asked for.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import orjson

from core.errors import RealmError, UserError, nearest
from core.formats import form as form_named
from core.quest import Settings
from core.quest_file import read_rows
from core.rows import BadRow, Message, Row
from core.teacher_answers import AnswerFile, Question, answered, last_line, question_of
from core.upstream import Upstream, UpstreamProblem

SETTING, KEY_FILE = "schools.whisper.url", "state/whisper.key"
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds before each new try
ANSWER_BYTES = 1 << 20
TOLD_SECONDS, SYNCED_TURNS = 0.25, 20
TRANSIENT = ("oracle_down", "oracle_lost", "oracle_silent", "oracle_busy", "upstream_failed")
NO_LIST = ("upstream_refused", "upstream_failed", "no_json", "oracle_silent", "too_large")  # it may answer all the same
SHOWN_MODELS = 8


def ask(
    path: Path,
    card: dict[str, Any],
    answers: Path,
    key: str | None = None,
    progress: Callable[[float], None] = lambda share: None,
    pauses: tuple[float, ...] = PAUSES,
) -> dict[str, Any]:
    """Have the rows of the quest in `path` answered into the file `answers`; what that says of itself then.

    `card`: the quest's: form, sha256, rows, settings. `progress` is told several times a second what share is done, and may end
    the asking by raising. Raises UserError; what was answered so far is kept.
    """
    if told := last_line(answers):
        return told
    file = AnswerFile(answers)
    try:
        anyio.run(_Asking(path, card, file, key, progress, pauses).run)
    finally:
        file.close()
    return last_line(answers)


class _Asking:
    """One quest's. `left_out`: rows whose answer cannot be trained, and why."""

    def __init__(self, path: Path, card: dict, file: AnswerFile, key: str | None, progress: Callable, pauses: tuple):
        self._path, self._card, self._file, self._progress, self._pauses = path, card, file, progress, pauses
        self._settings = Settings(**card["settings"])
        self._whisper = self._settings.schools.whisper
        self._hasher, self._left_out = hashlib.sha256(), {}
        self._questions = self._unanswered()
        self._server = Upstream(
            self._whisper.url, "The teacher", key, SETTING, KEY_FILE, silent=self._whisper.seconds, hop=False
        )
        self._problem: Exception | None = None

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                group.start_soon(self._guarded, self._work)
                group.start_soon(self._guarded, self._tell)
        finally:
            with anyio.CancelScope(shield=True):
                await self._server.close()
            self._file.sync()
        if self._problem:
            raise self._problem
        whisper = self._whisper
        self._file.finish(self._left_out, model=whisper.model, url=whisper.url)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """The first problem of any ends them all."""
        try:
            await work()
        except (RealmError, OSError) as problem:
            self._problem = self._problem or problem
            self._group.cancel_scope.cancel()

    async def _work(self) -> None:
        await self._patiently(self._check_model, "its list of models")
        async with anyio.create_task_group() as group:
            for _ in range(self._whisper.at_once):
                group.start_soon(self._guarded, self._ask_on)
        if self._problem is None and self._hasher.hexdigest() != self._card["sha256"]:
            name = self._path.name
            raise UserError(f"{name}: was altered after it was accepted; drop it into inbox/ again as a new quest")
        self._group.cancel_scope.cancel()

    async def _tell(self) -> None:
        turns = 0
        while True:
            self._progress(min(1.0, self._done / max(1, self._card["rows"])))
            await anyio.sleep(TOLD_SECONDS)
            turns += 1
            if turns % SYNCED_TURNS == 0:
                self._file.sync()

    @property
    def _done(self) -> int:
        return len(self._file.known) + len(self._left_out)

    # Asking

    def _unanswered(self) -> Iterator[tuple[int, Row, Question]]:
        """Line, row and question of all that is not answered yet."""
        form = form_named(self._card["form"])
        for number, _, row in read_rows(self._path, form, self._settings.columns, self._hasher):
            if number not in self._file.known and not isinstance(row, BadRow):
                yield number, row, question_of(row)

    async def _ask_on(self) -> None:
        """One question after the other, as long as there are any; others do so beside."""
        for line, row, question in self._questions:
            answer = await self._patiently(lambda question=question: self._answer(question), f"line {line}")
            why = answer.pop("problem", None) or _wrong(row, answer)
            if why is None:
                self._file.add(line, answer)
            else:
                self._leave_out(line, why)

    async def _patiently(self, work: Callable[[], Awaitable[Any]], what: str) -> Any:
        """`work`, begun again after each pause where that may help. Raises UserError."""
        for pause in (*self._pauses, None):
            try:
                return await work()
            except UpstreamProblem as problem:
                if pause is None or not (problem.code in TRANSIENT or problem.status == 429):
                    raise UserError(self._told(problem, what)) from problem
            await anyio.sleep(pause)
        return None

    async def _answer(self, question: Question) -> dict[str, Any]:
        """What the teacher says; `problem`: why it cannot be learned."""
        whisper = self._whisper
        request = {
            "model": whisper.model,
            "messages": [_spoken(turn) for turn in question.prompt],
            "temperature": whisper.temperature or 0.0,
            "max_tokens": whisper.max_new_tokens,
            "stream": False,
        }
        request |= {"seed": self._settings.seed} if whisper.temperature else {}
        request |= {"tools": list(question.tools)} if question.tools else {}
        return _said(await self._server.complete(request, ANSWER_BYTES, whisper.seconds))

    async def _check_model(self) -> None:
        """Raises UserError where the server lists models, and not ours."""
        model, url = self._whisper.model, self._whisper.url
        try:
            listed = [one["id"] for one in await self._server.models()]
        except UpstreamProblem as problem:
            if problem.code in NO_LIST:
                return
            raise
        if listed and not {model, f"{model}:latest"} & set(listed):
            raise UserError(
                f"schools.whisper.model = {model!r}: the teacher at {url} has no such model{nearest(model, listed)}; it lists "
                f"{', '.join(listed[:SHOWN_MODELS])}"
            )

    def _leave_out(self, line: int, why: str) -> None:
        """As many as may be bad rows of a file. Raises UserError."""
        self._left_out[line] = why
        share, rows = self._settings.max_bad_rows, self._card["rows"]
        if len(self._left_out) > share * rows:
            first = min(self._left_out)
            raise UserError(
                f"{SETTING} = {self._whisper.url}: {len(self._left_out):,} of {rows:,} answers cannot be trained, max_bad_rows = "
                f"{share:g} allows {int(share * rows):,}. The first: to line {first}: {self._left_out[first]}{self._kept}"
            )

    def _told(self, problem: UpstreamProblem, what: str) -> str:
        return f"{SETTING} = {self._whisper.url}: {str(problem).rstrip('.')} (asked for {what}){self._kept}"

    @property
    def _kept(self) -> str:
        return (
            f"; {len(self._file.known):,} of {self._card['rows']:,} answers are kept, `quest retry` asks for the others"
        )


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """The message of a completion. Raises UpstreamProblem where it is none."""
    choices = values.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        shown = orjson.dumps(values)[:80].decode("utf-8", "replace")
        raise UpstreamProblem("no_completion", f"The teacher answered what is no chat completion: {shown}.")
    said = {"content": message.get("content") or ""}
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought.strip():
        said["reasoning_content"] = thought
    if choice.get("finish_reason") == "length":
        said["problem"] = "it was not at its end after max_new_tokens; set schools.whisper.max_new_tokens higher"
    elif message.get("tool_calls"):
        said["problem"] = "it calls a tool, which is not learned from a server; leave `tools` out, or drop the row"
    return said


def _wrong(row: Row, answer: dict[str, Any]) -> str | None:
    """Why `answer` is none that can be learned."""
    if not answer["content"].strip():
        return "it is empty; drop the row, or ask another teacher"
    try:
        answered(row, answer)
    except BadRow as problem:
        return str(problem)
    return None


def _spoken(turn: Message) -> dict[str, Any]:
    """A turn as OpenAI's interface has it."""
    said = {key: turn[key] for key in ("role", "content", "name", "tool_call_id") if key in turn}
    if calls := turn.get("tool_calls"):
        named = [
            {**call["function"], "arguments": orjson.dumps(call["function"]["arguments"]).decode()} for call in calls
        ]
        said["tool_calls"] = [
            {"id": f"call_{place}", **call, "function": function}
            for place, (call, function) in enumerate(zip(calls, named, strict=True))
        ]
    return said
