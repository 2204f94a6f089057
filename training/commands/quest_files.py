"""`quest add|validate|preview`: files that are not in the realm yet. The user's own file is only read."""

import argparse
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError
from core.hero import tokenizer_folder
from core.inbox import drop, safe_stem
from core.json_array import elements
from core.logs import visible
from core.paths import PRIORITIES
from core.quest import Settings, check_sidecar, freeze
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import is_terminal, styled

SHOWN_ERRORS = 20


def register(actions) -> None:
    parser = verb(actions, "add", add, "copy files into the inbox: .jsonl, or .json that holds an array of rows")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--priority", choices=PRIORITIES)
    _take_settings(parser)
    parser.add_argument("--skill", help="skill that the rows teach")
    parser.add_argument("--force", action="store_true", help="train content that was trained before")
    parser = verb(actions, "validate", validate, "judge a file as the realm would, without training it")
    parser.add_argument("file", type=Path, metavar="FILE")
    _take_settings(parser)
    parser = verb(actions, "preview", preview, "show rows as the hero will see them, what is trained marked")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="how many (default 3)")
    _take_settings(parser)


def _take_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--school", help="school that trains it; `school list` shows them")
    parser.add_argument("--profile", help="how its answers are dressed before training")
    parser.add_argument("--epochs", type=int, help="passes over the rows")
    parser.add_argument(
        "--columns",
        action="extend",
        type=_pairs,
        default=[],
        metavar="THEIRS=OURS[,…]",
        help="rename columns, e.g. ask=prompt,reply=response",
    )
    parser.add_argument("--seed", type=int, help="seed of row order and held-out rows")


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(theirs and ours for theirs, _, ours in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} must be THEIRS=OURS, e.g. ask=prompt")
    return [(theirs, ours) for theirs, _, ours in pairs]


def _sidecar(args: argparse.Namespace) -> dict:
    """The flags as a sidecar's values, only those given. Raises UserError for a value that it does not take."""
    values = {name: getattr(args, name, None) for name in ("priority", "school", "profile", "epochs", "skill", "seed")}
    values |= {"columns": dict(args.columns), "force": getattr(args, "force", False)}
    given = {name: value for name, value in values.items() if value is not None and value is not False and value != {}}
    check_sidecar(given, "quest")
    return given


# Add


def add(realm: Realm) -> None:
    sidecar = _sidecar(realm.args)
    for path in realm.args.files:
        _check(path)
    priority = sidecar.get("priority", "normal")
    added = []
    for path in realm.args.files:
        with drop(realm.existing, path.name, priority, sidecar) as file:
            _copy_rows(path, file)
        added.append({"file": str(path), "stem": safe_stem(path.name), "priority": priority})
    later = "" if realm.runs else "\nThe realm does not run; it takes them at the next `start-all`."
    realm.report(added, "\n".join(f"{visible(one['file'])} lies in the inbox ({priority})." for one in added) + later)


def _check(path: Path) -> None:
    if path.suffix.lower() not in (".jsonl", ".json"):
        raise UserError(f"{path}: not a .jsonl file, nor a .json file with an array; rename or convert it")
    if not path.is_file():
        raise UserError(f"{path}: {'is not a regular file' if path.exists() else 'does not exist'}")
    try:
        path.open("rb").close()
    except OSError as problem:
        raise UserError(f"{path}: cannot be read: {problem.strerror}") from None


def _copy_rows(path: Path, target: BinaryIO) -> None:
    """The file's rows, one a line: an array is taken apart as it is read, anything else is copied as it is."""
    with open(path, "rb") as source:
        head = source.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        source.seek(0)
        if path.suffix.lower() == ".jsonl" or head.startswith(b"{"):
            shutil.copyfileobj(source, target, 1 << 20)
            return
        for row in elements(source, str(path)):
            target.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")


@contextlib.contextmanager
def _as_lines(path: Path) -> Iterator[Path]:
    """A file with the rows of `path`, one a line: itself, or a passing copy of an array."""
    _check(path)
    if path.suffix.lower() == ".jsonl":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / path.with_suffix(".jsonl").name
        with open(lines, "wb") as target:
            _copy_rows(path, target)
        yield lines


# Validate and preview


def _settings(realm: Realm) -> Settings:
    return freeze(realm.config, check_sidecar(_sidecar(realm.args), "quest"))


def _renderer(realm: Realm, settings: Settings):
    from core.rendering import Renderer

    return Renderer.load(tokenizer_folder(realm.paths, realm.config), settings.max_length)


def validate(realm: Realm) -> int:
    from core.validator import validate_file

    settings = _settings(realm)
    with _as_lines(realm.args.file) as path:
        report = validate_file(path, settings, _renderer(realm, settings), None)
    realm.report(report, lambda: "\n".join(judgement(report)))
    return 0 if report["verdict"] == "accepted" else 1


def judgement(report: dict) -> list[str]:
    """A report's text: verdict, counts, token lengths, the first bad rows with their remedies."""
    reason = f": {report['reason']}" if report.get("reason") else ""
    lines = [
        styled(visible(f"{report.get('file', 'file')}: {report.get('verdict')}{reason}"), "red" if reason else "green")
    ]
    if report.get("form"):
        lines.append(
            f"form {report['form']}, school {report['school']}, {report['rows']} rows, {report['bad_rows']} of them bad"
        )
    if tokens := report.get("tokens"):
        lines.append(
            f"tokens a row: median {tokens['median']}, p95 {tokens['p95']}, max {tokens['max']}; "
            f"{tokens['truncated_rows']} rows cut{'' if tokens['exact'] else ' (in a sample)'}"
        )
    lines += [styled(visible(f"  {warning}"), "gold") for warning in report.get("warnings", ())]
    errors = report.get("errors") or []
    for error in errors[:SHOWN_ERRORS]:
        remedy = f"; {error['remedy']}" if error.get("remedy") else ""
        lines.append(visible(f"  line {error.get('line')}: {error.get('field') or 'row'}: {error['reason']}{remedy}"))
    return lines + (
        [f"  and {len(errors) - SHOWN_ERRORS} more (--json lists them)"] if len(errors) > SHOWN_ERRORS else []
    )


def preview(realm: Realm) -> None:
    from core.row_preview import preview

    settings = _settings(realm)
    with _as_lines(realm.args.file) as path:
        renderer = _renderer(realm, settings)
        shown = preview(
            path.resolve(),
            settings.columns,
            renderer,
            realm.args.rows,
            profile=settings.profile,
            learned=settings.learned,
        )
    head = [] if shown["profile"] == "none" else [f"form {shown['form']}, dressed by the profile {shown['profile']}"]
    realm.report(shown, lambda: "\n\n".join([*head, *map(_row_text, shown["rows"])]))


def _row_text(row: dict) -> str:
    head = styled(f"line {row['line']}", "dim")
    if row["problem"]:
        return f"{head} {styled(visible(row['problem']), 'red')}"
    return "\n".join([head, *map(_sequence_text, row["sequences"])])


def _sequence_text(sequence: dict) -> str:
    cut = [
        styled(f"[{sequence[side]:,} tokens cut]", "dim") if sequence[side] else ""
        for side in ("cut_before", "cut_after")
    ]
    return "".join([cut[0], *map(_run_text, sequence["runs"]), cut[1]])


def _run_text(run: dict) -> str:
    """Trained text is green on a terminal, and in marks elsewhere."""
    text = "\n".join(map(visible, run["text"].split("\n")))
    if not run["trained"]:
        return text
    return styled(text, "green") if is_terminal() else f"⟦{text}⟧"
