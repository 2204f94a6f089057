"""What people drop into an inbox by mistake: every file ends where the contract says, and the daemon lives on in little memory."""

import contextlib
import ctypes
import gzip
import hashlib
import json
import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from processes import until

from core.durable import read_json
from core.inbox import has_no_writer, queue_stem
from core.intake import Intake
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, CHECKOUT, RealmPaths
from core.quest import Sidecar, freeze
from core.training_queue import TrainingQueue
from core.validation_process import ValidationProcess

_libc = ctypes.CDLL(None)
MEMORY_BYTES = 300 << 20  # of daemon and readers together
MANY = 200  # rows, of which max_bad_rows lets 2 be bad
WORDS = "The quick brown fox jumps over the lazy dog and runs away. "


# The bag


@dataclass(frozen=True)
class Rejected:
    """Where it ends, and what its report must say: about the file, and about its first bad line."""

    reason: str
    line: int | None = None
    field: str = "line"
    says: str = ""
    value: str | None = None
    remedy: str = ""


@dataclass(frozen=True)
class Accepted:
    """In the queue, with so many good rows and so many set aside."""

    rows: int
    aside: int = 0
    priority: str = "normal"


@dataclass(frozen=True)
class Case:
    name: str
    make: bytes | Callable[[Path], None]
    ends: Rejected | Accepted
    sidecar: bytes | None = None


def jsonl(*rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in rows)


def asks(salt: str, count: int) -> list[dict]:
    """Good rows that no other file has."""
    return [
        {"question": f"What comes after {number} in {salt}?", "answer": f"It is {number + 1}."}
        for number in range(count)
    ]


def good(salt: str, count: int = 20) -> bytes:
    return jsonl(*asks(salt, count))


def chat(*turns: str) -> dict:
    """Turns written as `role: words`."""
    return {"messages": [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]}


def one_bad(salt: str, bad: bytes, count: int = 50) -> bytes:
    """`bad` as line 3 of `count` lines."""
    lines = good(salt, count - 1).splitlines()
    return b"\n".join([*lines[:2], bad, *lines[2:]]) + b"\n"


def image(size: int = 50_000) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + zlib.compress(random.Random(1).randbytes(size))


def zipped() -> bytes:
    with zipfile.ZipFile(into := BytesIO(), "w") as archive:
        archive.writestr("rows.jsonl", good("zip"))
    return into.getvalue()


def folder(path: Path) -> None:
    path.mkdir()
    (path / "inner.jsonl").write_bytes(good("inner"))


def bound_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


def second_name(path: Path) -> None:
    path.write_bytes(good("hard link"))
    os.link(path, path.with_name("first name of the hard link"))


def unreadable(path: Path) -> None:
    path.write_bytes(good("unreadable"))
    path.chmod(0)


def bad_row(name: str, row, field: str, says: str, value: str | None = None, remedy: str = "") -> Case:
    """A file of 50 lines, the third of which is `row`: one too many."""
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    if isinstance(row, dict) and "messages" in row:
        salted = [chat(f"user: {number} in {name}?", "assistant: Yes.") for number in range(49)]
        data = jsonl(*salted[:2]) + line + b"\n" + jsonl(*salted[2:])
    else:
        data = one_bad(name, line)
    return Case(
        name, data, Rejected("1 of 50 rows is bad; max_bad_rows = 0.01 allows 0", 3, field, says, value, remedy)
    )


GOOD = (
    Case(
        "good messages",
        jsonl(*(chat("system: Be kind.", f"user: {n}?", "assistant: Yes.") for n in range(20))),
        Accepted(20),
    ),
    Case(
        "good alpaca",
        jsonl(*({"instruction": f"Add {n}", "input": "1", "output": str(n + 1)} for n in range(20))),
        Accepted(20),
    ),
    Case(
        "good conversations",
        jsonl(
            *(
                {"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "Yes."}]}
                for n in range(20)
            )
        ),
        Accepted(20),
    ),
    Case("good completion", jsonl(*({"prompt": f"{n} and", "completion": "so on"} for n in range(20))), Accepted(20)),
    Case("good text", jsonl(*({"text": f"Line {n} of a book."} for n in range(20))), Accepted(20)),
)

NO_LINES = (
    Case("empty", b"", Rejected("the file holds no rows")),
    Case("blank lines", b"\n  \n\r\n\t\n", Rejected("the file holds no rows")),
    Case("utf-16", good("utf-16").decode().encode("utf-16"), Rejected("UTF-16")),
    Case("utf-16 without mark", good("utf-16 bare").decode().encode("utf-16-le"), Rejected("UTF-16")),
    Case("gzip", gzip.compress(good("gzip", 500)), Rejected("compressed (gzip)")),
    Case("zip", zipped(), Rejected("compressed (zip)")),
    Case("png", image(), Rejected("a PNG image")),
    Case("array", json.dumps(asks("array", 20), indent=1).encode(), Rejected("quest add")),
    Case("array of lines", b"[\n" + b",\n".join(good("array of lines").splitlines()) + b"\n]\n", Rejected("quest add")),
    Case("array on one line", json.dumps(asks("array on one line", 20)).encode(), Rejected("quest add")),
    Case("pretty object", json.dumps({"rows": asks("pretty", 2000)}, indent=2).encode(), Rejected("over many lines")),
    Case(
        "csv", b"question,answer\n" + b"".join(b"What is %d?,It is %d.\n" % (n, n) for n in range(50)), Rejected("CSV")
    ),
    Case("web page", b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", Rejected("an HTML page")),
    Case(
        "git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", Rejected("git lfs pull")
    ),
    Case("nothing but NUL", bytes(1 << 20), Rejected("NUL bytes")),
    Case(
        "numbers",
        b"".join(b"%d\n" % n for n in range(50)),
        Rejected("JSON object", 1, says="is not a JSON object", value="0", remedy="one {…} a line"),
    ),
    Case("strings", b"".join(b'"row %d"\n' % n for n in range(50)), Rejected("JSON object", 1, value="row 0")),
    Case("lists", b"".join(b'["row", %d]\n' % n for n in range(50)), Rejected("JSON object", 1, value="['row', 0]")),
    Case(
        "python",
        b"".join(b"{'question': '%d?', 'answer': 'Yes.'}\n" % n for n in range(50)),
        Rejected("JSON object", 1, says="is not JSON", value="{'question': '0?'", remedy="double quotes"),
    ),
    Case("old mac", good("old mac").replace(b"\n", b"\r"), Rejected("CR alone")),
)

BAD_LINES = (
    Case(
        "latin-1",
        jsonl(*asks("café", 50)).decode().encode("latin-1"),
        Rejected(
            "JSON object",
            1,
            says="is not UTF-8 at byte",
            value="caf\N{REPLACEMENT CHARACTER}",
            remedy="save the file as UTF-8",
        ),
    ),
    Case(
        "cut off",
        good("cut off", 50)[:-20],
        Rejected("1 of 50 rows is bad", 50, says="unexpected end", value='"an', remedy="cut off"),
    ),
    bad_row("not a number", b'{"question": "How many?", "answer": NaN}', "line", "is not JSON", "NaN", "write null"),
    bad_row(
        "infinite",
        b'{"question": "How many?", "answer": "Many.", "weight": 1e999}',
        "line",
        "infinity",
        "1e999",
        "1e308",
    ),
    bad_row("deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "line", "depth", '{"a":{"a"', "flatten"),
    bad_row(
        "less deep",
        b'{"question": "?", "answer": "!", "a":' + b"[" * 500 + b"]" * 500 + b"}",
        "line",
        "nested",
        None,
        "flatten",
    ),
    bad_row(
        "long line",
        b'{"question": "?", "answer": "' + b"x" * (9 << 20) + b'"}',
        "line",
        "longer than 8 MiB",
        '{"question"',
        "split",
    ),
    bad_row("NUL inside", b'{"question": "a\0b", "answer": "c"}', "line", "control character", "a\0b", "escape"),
    bad_row("lone surrogate", b'{"question": "\\ud83d", "answer": "c"}', "line", "surrogate", "\\ud83d", "UTF-8"),
    bad_row(
        "raw surrogate",
        b'{"question": "\xed\xa0\xbd", "answer": "c"}',
        "line",
        "is not UTF-8 at byte 15",
        None,
        "UTF-8",
    ),
    bad_row("missing field", {"question": "Why?"}, "answer", "is missing", None, "question"),
    bad_row(
        "wrong type",
        {"question": "Why?", "answer": {"text": "So."}},
        "answer",
        "is an object, not text",
        "{'text': 'So.'}",
        "text",
    ),
    bad_row("empty answer", {"question": "Why?", "answer": "  "}, "answer", "is empty", "  ", "words"),
    bad_row(
        "unknown role",
        chat("user: Why?", "asistant: So."),
        "messages[1].role",
        "did you mean 'assistant'?",
        "asistant",
        "known: ",
    ),
    bad_row(
        "assistant first", chat("assistant: Hello."), "messages[0]", "as the first turn", "Hello.", "system or user"
    ),
    bad_row(
        "no assistant",
        chat("system: Be kind.", "user: Why?"),
        "messages",
        "ends with a user turn",
        "Why?",
        "assistant's answer",
    ),
    bad_row(
        "two users",
        chat("user: Why?", "user: Why not?", "assistant: So."),
        "messages[1]",
        "second of two user",
        "Why not?",
        "join",
    ),
    bad_row("no messages", {"messages": []}, "messages", "is empty, not a list of messages", "[]", '"role"'),
    bad_row("600 turns", chat(*["user: Why?", "assistant: So."] * 300), "messages", "has 600 turns", None, "512"),
    bad_row(
        "picture part",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
                {"role": "assistant", "content": "!"},
            ]
        },
        "messages[0].content[0]",
        "is not a text part",
        "image_url",
        "only text",
    ),
    bad_row(
        "broken call",
        {
            "messages": [
                {"role": "user", "content": "?"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            ]
        },
        "messages[1].tool_calls[0].arguments",
        "is not JSON",
        "{",
        "JSON",
    ),
    bad_row(
        "huge role",
        chat("user: ?", f"{'assistant' * 300_000}: !"),
        "messages[1].role",
        "is not a known role",
        "assistantassistant",
    ),
    Case(
        "many forms",
        jsonl(
            chat("user: a", "assistant: b"),
            {"text": "a"},
            *asks("many forms", 1),
            {"prompt": "a", "completion": "b"},
            {"instruction": "a", "output": "b"},
            {"conversations": []},
        ),
        Rejected("5 of 6 rows are bad; max_bad_rows = 0.01 allows 0", 2, "messages", "is missing", None, "this row is"),
    ),
    Case(
        "no form",
        jsonl(*({"ask": str(n), "reply": "b"} for n in range(9))),
        Rejected("rows of no known form: fields ask, reply"),
    ),
    Case(
        "huge field name",
        jsonl(*({"a" * 100_000 + str(n): "b"} for n in range(5))),
        Rejected("rows of no known form: fields aaa"),
    ),
    Case(
        "preference",
        jsonl(*({"prompt": f"{n}?", "chosen": "Yes.", "rejected": "No."} for n in range(9))),
        Accepted(9),
    ),
    Case(
        "label",
        jsonl(*({"prompt": f"{n}?", "completion": "Yes.", "label": False} for n in range(9))),
        Accepted(9),
    ),
    Case(
        "reward",
        jsonl(*({"prompt": f"{n}?", "response": "Yes.", "reward": 0.5} for n in range(9))),
        Rejected("go to the Champion"),
    ),
    Case(
        "problem",
        jsonl(*({"prompt": f"{n}?", "answer": "1", "skill": "BIN"} for n in range(9))),
        Rejected("go to the Champion"),
    ),
)

SIDECARS = (
    Case(
        "unknown field",
        good("unknown field"),
        Rejected("unknown field.quest.json: unknown field 'epocs'; did you mean 'epochs'?"),
        b'{"epocs": 2}',
    ),
    Case(
        "wrong value",
        good("wrong value"),
        Rejected("wrong value.quest.json: epochs = 'two': Input should be a valid integer"),
        b'{"epochs": "two"}',
    ),
    Case("wrong priority", good("wrong priority"), Rejected("'high', 'normal' or 'low'"), b'{"priority": "urgent"}'),
    Case("no school", good("no school"), Rejected("school = 'wizard'"), b'{"school": "wizard"}'),
    Case(
        "wrong school",
        good("wrong school"),
        Rejected("the school judge teaches from rows of the forms preference, label; these are of the form question"),
        b'{"school": "judge"}',
    ),
    Case(
        "wrong school setting",
        good("wrong school setting"),
        Rejected("schools.judge.beta = -1"),
        b'{"schools": {"judge": {"beta": -1}}}',
    ),
    Case(
        "broken sidecar",
        good("broken sidecar"),
        Rejected("broken sidecar.quest.json: must be one JSON object, and is not JSON"),
        b'{"epochs": 2,',
    ),
    Case(
        "empty sidecar",
        good("empty sidecar"),
        Rejected("empty sidecar.quest.json: must be one JSON object, and is not JSON"),
        b"",
    ),
    Case(
        "list as sidecar",
        good("list as sidecar"),
        Rejected("list as sidecar.quest.json: must be one JSON object"),
        b"[]",
    ),
    Case(
        "huge sidecar",
        good("huge sidecar"),
        Rejected("huge sidecar.quest.json: is larger than 1 MiB"),
        b'{"skill": "' + b"a" * (200 << 20),
    ),
    Case(
        "long value",
        good("long value"),
        Rejected("long value.quest.json: epochs = 'aaa"),
        b'{"epochs": "' + b"a" * 900_000 + b'"}',
    ),
    Case(
        "columns of nothing",
        jsonl(*({"a": str(n), "b": "c"} for n in range(9))),
        Rejected("`columns` names ask, reply, which no row has"),
        b'{"columns": {"ask": "prompt", "reply": "response"}}',
    ),
    Case(
        "good sidecar",
        jsonl(*({"ask": str(n), "reply": "c"} for n in range(9))),
        Accepted(9, priority="high"),
        b'{"columns": {"ask": "prompt", "reply": "response"}, "priority": "high"}',
    ),
)

NO_FILES = (
    Case(
        "symlink", lambda path: path.symlink_to("/etc/hostname"), Rejected("is a symbolic link; drop the file itself")
    ),
    Case(
        "symlink to nothing",
        lambda path: path.symlink_to("nothing"),
        Rejected("is a symbolic link; drop the file itself"),
    ),
    Case(
        "symlink to itself",
        lambda path: path.symlink_to(path.name),
        Rejected("is a symbolic link; drop the file itself"),
    ),
    Case("pipe", os.mkfifo, Rejected("is a pipe; only regular files are taken")),
    Case("socket", bound_socket, Rejected("is a socket; only regular files are taken")),
    Case("folder", folder, Rejected("is a folder; only regular files are taken")),
    Case("hard link", second_name, Rejected("has a second name (hard link)")),
    Case("unreadable", unreadable, Rejected("cannot be read: Permission denied")),
)

NAMES = tuple(Case(name, good(f"name {place}"), Accepted(20)) for place, name in enumerate((
    "two\nlines", "x" * 200, "y" * 249, "ü" * 124, "🐉" * 62, "-rf", "--help", "evil-q000001", "a 'quoted' \"name\"", "<script>alert(1)<",
    "$(reboot); `reboot`", "%s %n {0}", "[a]*?", "\u202egnp", " ", "x.bad", "x.quest", "x.report", "a.jsonl", "CON", "\\..\\x", "\x1b[31m",
    "caf\udce9",
)))  # fmt: skip
BAD_NAMES = tuple(Case(name, b"%d\n" % place, Rejected("JSON object", 1)) for place, name in enumerate((
    "bad\nlines", "bad" * 83, "bad-q000001", "bad.bad", "-bad", "<script>bad<")))  # fmt: skip

BEARABLE = (
    Case("cut off, but long", good("cut off, but long", MANY)[:-20], Accepted(MANY - 1, 1)),
    Case("two bad ones", one_bad("two bad ones", b"null\n[1]", MANY - 1), Accepted(MANY - 2, 2)),
    Case(
        "a long line among many",
        one_bad("long", b'{"question": "' + b"x" * (9 << 20) + b'"}', MANY),
        Accepted(MANY - 1, 1),
    ),
    Case(
        "control tokens",
        jsonl(
            *(
                {"question": f"{n} <|im_end|>\n<|im_start|>assistant", "answer": "<|im_end|><|endoftext|>"}
                for n in range(20)
            )
        ),
        Accepted(20),
    ),
    Case(
        "rows above max_length",
        jsonl(*({"question": f"{n}?", "answer": WORDS * 1000} for n in range(20))),
        Accepted(20),
    ),
    Case("a book as a row", jsonl({"text": WORDS * 70_000}), Accepted(1)),
    Case("dragons as a row", jsonl({"question": "?", "answer": "🐉 " * 300_000}), Accepted(1)),
    Case("one endless word", jsonl({"question": "Scream!", "answer": "a" * 2_000_000}), Accepted(1)),
    Case("rows of many turns", jsonl(chat(*[f"user: {WORDS * 30}", f"assistant: {WORDS * 30}"] * 250)), Accepted(1)),
    Case("many small objects", jsonl({"question": "Why?", "answer": "!", "junk": [{}] * 300_000}), Accepted(1)),
    Case("byte order mark", b"\xef\xbb\xbf" + good("byte order mark"), Accepted(20)),
    Case("windows", good("windows").replace(b"\n", b"\r\n"), Accepted(20)),
    Case("without last newline", good("without last newline")[:-1], Accepted(20)),
    Case("ENDING.JSONL", good("ending"), Accepted(20)),
)

TWINS = (
    Case("twin of a good one", GOOD[0].make, Rejected("duplicate")),
    Case("same content 1", good("same content"), Accepted(20)),
    Case("same content 2", good("same content"), Rejected("duplicate")),
)

CASES = (*GOOD[:1], *NO_LINES, *GOOD[1:2], *BAD_LINES, *GOOD[2:3], *SIDECARS, *NO_FILES, *GOOD[3:4], *NAMES, *BAD_NAMES, *BEARABLE, *TWINS,
         *GOOD[4:])  # fmt: skip


# The realm


@dataclass
class Daemon:
    """A real daemon's process, and the most memory it and its readers were seen to hold together."""

    paths: RealmPaths
    process: subprocess.Popen = None
    most_bytes: int = 0

    def start(self) -> "Daemon":
        command = [sys.executable, "-m", "training.daemon_process", "--root", str(self.paths.root)]
        with open(self.paths.root / "stderr", "ab") as errors:
            self.process = subprocess.Popen(command, cwd=CHECKOUT, stderr=errors, preexec_fn=obey_permissions)
        threading.Thread(target=self._weigh, args=(self.process,), daemon=True).start()
        until((self.paths.heartbeats / "daemon").exists)
        return self

    def __enter__(self) -> "Daemon":
        return self.start()

    def __exit__(self, *_) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 0

    def _weigh(self, process: subprocess.Popen) -> None:
        while process.poll() is None:
            self.most_bytes = max(self.most_bytes, sum(map(resident_bytes, family(process.pid))))
            time.sleep(0.03)

    def said(self) -> str:
        return (self.paths.root / "stderr").read_text()


def obey_permissions() -> None:
    """Give up, where this is root, the right to read everything (PR_CAPBSET_DROP of CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    for capability in (1, 2):
        _libc.prctl(24, capability, 0, 0, 0)


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(each for child in children for each in family(int(child)))]


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def make_realm(root: Path) -> RealmPaths:
    paths = RealmPaths(root)
    paths.make()
    paths.config.write_text('{"idle_generation": {"enabled": false}}')
    (root / "outside").mkdir()
    return paths


def drop(paths: RealmPaths, case: Case, priority: str = "normal") -> os.stat_result:
    """Make the file outside and rename it in, its sidecar first."""
    outside = paths.root / "outside" / "file"
    if callable(case.make):
        case.make(outside)
    else:
        outside.write_bytes(case.make)
    ending = "" if case.name.endswith(".JSONL") else ".jsonl"
    if case.sidecar is not None:
        (paths.inbox_for(priority) / f"{case.name}.quest.json").write_bytes(case.sidecar)
    facts = outside.lstat()
    os.rename(outside, paths.inbox_for(priority) / f"{case.name}{ending}")
    return facts


def settled(paths: RealmPaths) -> bool:
    return not any(paths.claims.iterdir()) and not list(paths.inbox.rglob("*.[jJ]*[lL]"))


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def places(paths: RealmPaths) -> dict[int, list[Path]]:
    """Where each inode lies, in inbox and queue."""
    found: dict[int, list[Path]] = {}
    for top in (paths.inbox, paths.queue):
        for path in top.rglob("*"):
            found.setdefault(path.lstat().st_ino, []).append(path)
    return found


def grow(path: Path, lines: list[bytes], seconds: float) -> None:
    """A writer that opens the file for each line and rests in between."""
    for line in lines:
        with open(path, "ab") as file:
            file.write(line)
        time.sleep(seconds / len(lines))


def tease(folder: Path, count: int) -> None:
    """Rename files in and take them back at once."""
    for number in range(count):
        path = folder / f"teaser {number}.jsonl"
        (folder / ".teaser").write_bytes(good(f"teaser {number}", 2))
        os.rename(folder / ".teaser", path)
        time.sleep(0.001 * number)
        path.unlink(missing_ok=True)


@dataclass
class Bag:
    daemon: Daemon
    paths: RealmPaths
    facts: dict[str, os.stat_result]
    seconds: float

    def lies(self, case: Case) -> Path:
        """The one place of a case's file."""
        (path,) = places(self.paths)[self.facts[case.name].st_ino][: 2 if case.name == "hard link" else None][-1:]
        return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Iterator[Bag]:
    """Everything dropped at once before a daemon that runs, and judged."""
    paths = make_realm(tmp_path_factory.mktemp("bag"))
    daemon = Daemon(paths)
    growing = paths.inbox / "growing.jsonl"
    others = [threading.Thread(target=grow, args=(growing, good("growing", 30).splitlines(True), 5.0)),
              threading.Thread(target=tease, args=(paths.inbox, 40))]  # fmt: skip
    with daemon:
        began = time.monotonic()
        for other in others:
            other.start()
        facts = {case.name: drop(paths, case) for case in CASES}
        for other in others:
            other.join()
        until(lambda: settled(paths) or daemon.process.poll() is not None)
        yield Bag(daemon, paths, facts, time.monotonic() - began)
        daemon.stop()


# What must hold


@pytest.mark.parametrize(
    "case", [case for case in CASES if isinstance(case.ends, Rejected)], ids=lambda case: repr(case.name)[:40]
)
def test_a_bad_file_is_rejected_whole_beside_a_report_that_says_why(bag, case):
    path, wanted = bag.lies(case), case.ends
    assert path.parent == bag.paths.queued("rejected") and path.suffix == ".jsonl"
    assert path.stem == queue_stem(case.name) or path.stem.startswith(f"{queue_stem(case.name)}-q0")
    if stat.S_ISREG(path.lstat().st_mode) and not callable(case.make):
        assert path.read_bytes() == case.make
    report = json.loads(path.with_suffix(".report.json").read_bytes())
    assert report["verdict"] == "rejected" and report["file"] == f"{queue_stem(case.name)}.jsonl"
    assert wanted.reason in report["reason"] and len(report["reason"]) < 1000
    assert not path.with_suffix(".bad.jsonl").exists(), "a rejected file is whole, nothing is set aside"
    if wanted.reason == "duplicate":
        assert report["reason"] == "duplicate" and f"`quest retry {report['quest']} --force`" in report["text"]
    if wanted.line:
        first = report["errors"][0]
        assert first["line"] == wanted.line and first["field"] == wanted.field
        assert wanted.says in first["reason"] and first["remedy"] and wanted.remedy in first["remedy"]
        assert wanted.value in first["value"] if wanted.value is not None else True
        assert all(len(each) <= 300 for error in report["errors"] for each in error.values() if isinstance(each, str))
    if case.sidecar is not None:
        assert digest(path.with_suffix(".quest.json")) == hashlib.sha256(case.sidecar).hexdigest()


@pytest.mark.parametrize(
    "case", [case for case in CASES if isinstance(case.ends, Accepted)], ids=lambda case: repr(case.name)[:40]
)
def test_a_file_that_can_be_trained_waits_in_the_queue_with_its_bad_rows_beside(bag, case):
    path, wanted = bag.lies(case), case.ends
    assert path.parent == bag.paths.queued(wanted.priority)
    assert path.read_bytes() == case.make
    stem = queue_stem(case.name.removesuffix(".JSONL"))
    assert path.name.startswith(f"{stem}-q0")
    report, card = (json.loads(path.with_suffix(ending).read_bytes()) for ending in (".report.json", ".quest.json"))
    assert (report["verdict"], report["reason"]) == ("accepted", None)
    assert (card["rows"], card["bad_rows"]) == (wanted.rows, wanted.aside) == (report["rows"], report["bad_rows"])
    aside = path.with_suffix(".bad.jsonl")
    assert aside.exists() == bool(wanted.aside)
    if wanted.aside:
        assert all(line[: 8 << 20] in case.make for line in aside.read_bytes().splitlines())
        assert len(aside.read_bytes().splitlines()) == len(report["errors"]) == wanted.aside


def test_every_file_lies_in_one_place_and_nothing_else_is_left(bag):
    found = places(bag.paths)
    assert {name: found[facts.st_ino] for name, facts in bag.facts.items() if len(found[facts.st_ino]) != 1} == {}
    left = [path for path in (*bag.paths.inbox.rglob("*"), *bag.paths.claims.iterdir()) if path.is_file()]
    assert left == []


def test_a_file_that_grows_is_taken_once_and_whole(bag):
    grown = [path for path in bag.paths.queue.rglob("growing*.jsonl")]
    assert [path.parent.name for path in grown] == ["normal"]
    assert grown[0].read_bytes() == good("growing", 30)


def test_a_file_taken_back_at_once_is_gone_or_judged(bag):
    ledger = Ledger(bag.paths.ledger)
    states = {row["state"] for row in ledger.all("SELECT state FROM quests WHERE stem LIKE 'teaser%'")}
    ledger.close()
    assert states <= {"vanished", "queued"}


def test_the_daemon_lives_says_nothing_on_stderr_and_needed_little_memory(bag):
    assert bag.daemon.process.poll() is None
    assert bag.daemon.said() == ""
    print(f"{len(CASES)} files in {bag.seconds:.1f} s, {bag.daemon.most_bytes >> 20} MiB")
    assert bag.daemon.most_bytes < MEMORY_BYTES


def test_a_good_file_dropped_after_the_bag_is_taken(bag):
    drop(bag.paths, Case("afterwards", good("afterwards"), Accepted(20)))
    until(lambda: list(bag.paths.queued("normal").glob("afterwards-q*.jsonl")), 10)


def test_a_file_that_is_deleted_while_it_is_judged_stops_nothing(bag):
    drop(bag.paths, Case("deleted", good("deleted", 10_000), Accepted(10_000)))
    (claimed,) = until(lambda: list(bag.paths.claims.glob("deleted-q*[0-9].jsonl")), 10)
    claimed.unlink()
    drop(bag.paths, Case("after it", good("after it"), Accepted(20)))
    until(lambda: list(bag.paths.queued("normal").glob("after it-q*.jsonl")), 20)
    assert bag.daemon.process.poll() is None and not list(bag.paths.queue.rglob("deleted*"))


# Large files


def test_the_small_ones_do_not_wait_for_a_file_of_300_megabytes(bag):
    row, path = jsonl({"question": "Tell me all.", "answer": WORDS * 70}), bag.paths.root / "outside" / "large"
    with open(path, "wb") as file:
        for number in range(1200):
            file.write(b"".join(row.replace(b"all", b"all of %d" % (number * 60 + each)) for each in range(60)))
    size = path.stat().st_size
    os.rename(path, bag.paths.inbox / "large.jsonl")
    until(lambda: list(bag.paths.claims.glob("large-q*.jsonl")), 10)
    for number in range(3):
        drop(bag.paths, Case(f"small {number}", good(f"small {number}"), Accepted(20)))
    until(lambda: len(list(bag.paths.queued("normal").glob("small ?-q*.jsonl"))) == 3, 15)
    assert list(bag.paths.claims.glob("large-q*.jsonl")), "judged after all the small ones"
    (large,) = until(lambda: list(bag.paths.queued("normal").glob("large-q*.jsonl")), 120)
    report = until(lambda: read_json(large.with_suffix(".report.json")))
    assert size > 300e6 and report["rows"] == 72_000 and report["bytes"] == size
    assert report["tokens"]["exact"] is False and 10_000 < report["tokens"]["rows_measured"] < 20_000
    assert bag.daemon.most_bytes < MEMORY_BYTES


def test_a_row_of_eight_megabytes_needs_less_than_the_limit_in_its_reader(tmp_path, config):
    path, reader = tmp_path / "long.jsonl", ValidationProcess(lambda: None)
    path.write_bytes(jsonl({"question": "?", "answer": "🐉" + WORDS * 140_000}))
    settings = freeze(config, Sidecar()).model_dump()
    reader.give({"task": "validate", "path": str(path), "settings": settings, "tokenizer": str(BUNDLED_TOKENIZER),
                 "bad_rows": str(tmp_path / "bad")}, 0.0)  # fmt: skip
    try:
        _, report = until(lambda: reader.take(0.0))
        (peak,) = [
            line for line in Path(f"/proc/{reader._child.pid}/status").read_text().splitlines() if "VmHWM" in line
        ]
    finally:
        reader.close()
    assert report["verdict"] == "accepted" and report["tokens"]["truncated_rows"] == 1
    assert int(peak.split()[1]) * 1024 < MEMORY_BYTES, peak


# Kills


def test_a_daemon_killed_again_and_again_loses_nothing_and_takes_nothing_twice(tmp_path):
    paths = make_realm(tmp_path)
    more = ["assistant: Yes.", "user: More?"] * 20
    cases = [
        Case("slow", jsonl(*(chat(f"user: {n}?", *more, "assistant: No.") for n in range(400))), Accepted(400)),
        Case("slow and bad", good("slow and bad", 5000) + b"{}\n" * 1000, Rejected("1,000 of 6,000 rows are bad")),
        Case("aside", one_bad("aside", b"null", MANY), Accepted(MANY - 1, 1)),
        Case("urgent", good("urgent"), Accepted(20, priority="high"), b'{"priority": "high"}'),
        Case("wrong", good("wrong"), Rejected("unknown field 'epocs'"), b'{"epocs": 2}'),
        Case("twin", good("urgent"), Rejected("duplicate")),
        Case("pipe", os.mkfifo, Rejected("is a pipe")),
    ]  # fmt: skip
    with Daemon(paths) as daemon:
        facts = {case.name: drop(paths, case) for case in cases}
        for moment in (0.3, 0.0, 0.6):
            until(lambda: any(paths.claims.glob("*.jsonl")) or settled(paths), 20)
            time.sleep(moment)
            readers = family(daemon.process.pid)[1:]
            daemon.kill()
            until(lambda gone=readers: not any(resident_bytes(pid) for pid in gone), 5)
            daemon.start()
        until(lambda: settled(paths))
        daemon.stop()
    found = places(paths)
    for case in cases:
        (path,) = found[facts[case.name].st_ino]
        report = json.loads(path.with_suffix(".report.json").read_bytes())
        if isinstance(case.ends, Rejected):
            assert path.parent.name == "rejected" and case.ends.reason in report["reason"]
        else:
            assert (path.parent.name, report["rows"], report["bad_rows"]) == (
                case.ends.priority,
                case.ends.rows,
                case.ends.aside,
            )
            assert path.with_suffix(".bad.jsonl").exists() == bool(case.ends.aside)
    ends = sorted(path.name for path in paths.queue.rglob("*.json*"))
    accepted, rejected = 3, 4
    assert len(ends) == accepted * 3 + 1 + rejected * 2 + 1, f"file, report and card each, {ends}"


@pytest.mark.parametrize("step", ["core.training_queue.write_json", "core.training_queue.move"])
def test_a_crash_in_the_middle_of_a_rejection_leaves_one_file_one_report_and_one_sidecar(
    realm, config, ledger, monkeypatch, step
):
    class Crash(BaseException):
        pass

    lane = ValidationProcess(lambda: None)

    def intake() -> Intake:
        return Intake(realm, config, ledger, TrainingQueue(realm, ledger), lane, lane)

    def crash(*_):
        raise Crash

    (realm.inbox / "wrong.jsonl").write_bytes(good("wrong"))
    (realm.inbox / "wrong.quest.json").write_bytes(b'{"epocs": 2}')
    first = intake()
    first.inbox.renamed_in(realm.inbox / "wrong.jsonl")
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(step, crash)
        first.look(0.0)
        first._judge(None, next(realm.claims.glob("*.jsonl")), BUNDLED_TOKENIZER, 0.0)
    second = intake()
    second.recover()
    second._judge(None, next(realm.claims.glob("*.jsonl")), BUNDLED_TOKENIZER, 0.0)
    names = {path.name: path.read_bytes() for path in realm.queued("rejected").iterdir()}
    assert sorted(names) == ["wrong.jsonl", "wrong.quest.json", "wrong.report.json"]
    assert names["wrong.jsonl"] == good("wrong") and names["wrong.quest.json"] == b'{"epocs": 2}'
    assert b"unknown field 'epocs'" in names["wrong.report.json"]
    assert not any(realm.claims.iterdir())


# Places that are hard to take from


def test_an_inbox_on_another_file_system_gives_its_files_and_keeps_what_is_none(tmp_path):
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    paths = make_realm(tmp_path)
    with contextlib.ExitStack() as stack:
        other = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=shared)))
        for name in ("high", "low"):
            (paths.inbox / name).rmdir()
            (other / name).mkdir()
        paths.inbox.rmdir()
        paths.inbox.symlink_to(other)
        daemon = stack.enter_context(Daemon(paths))
        os.mkfifo(other / "pipe.jsonl")
        (other / "link.jsonl").symlink_to("/etc/hostname")
        (other / "file.jsonl").write_bytes(good("file"))
        (taken,) = until(lambda: list(paths.queued("normal").glob("file-q*.jsonl")), 15)
        assert taken.read_bytes() == good("file")
        time.sleep(1.0)
        assert sorted(path.name for path in other.glob("*.jsonl")) == ["link.jsonl", "pipe.jsonl"]
        ledger = Ledger(paths.ledger)
        stack.callback(ledger.close)
        told = [event["text"] for event in ledger.events() if event["code"] == "quest_stuck"]
        assert sorted(told) == [
            f"{name} cannot be taken from the inbox: Invalid cross-device link." for name in ("link", "pipe")
        ]
        daemon.stop()


def test_a_writer_who_opens_a_file_while_it_is_looked_at_does_not_end_the_daemon(tmp_path):
    path = tmp_path / "busy.jsonl"
    path.touch()
    writer = subprocess.Popen(
        [sys.executable, "-c", "import os, sys\nwhile True: os.close(os.open(sys.argv[1], os.O_WRONLY))", path]
    )
    looker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\nfrom core.inbox import has_no_writer\n"
            "end = time.monotonic() + 1\nwhile time.monotonic() < end: has_no_writer(Path(sys.argv[1]))",
            path,
        ],
        cwd=CHECKOUT,
    )
    assert looker.wait(30) == 0, "a lease that is broken sends a signal"
    writer.kill()
    writer.wait()
    assert has_no_writer(path)
