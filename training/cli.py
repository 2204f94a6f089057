"""The command line: finds the verb, runs it, turns errors into one line and an exit code. It knows no verb by name.

Exit codes: 0 done, 1 failed, 2 wrong usage. This is one of the three places where exceptions end.
"""

import argparse
import contextlib
import logging
import os
import sys
import time

from core.errors import RealmError, nearest
from core.full_disk import is_no_space
from core.logs import start_logging, visible
from core.paths import RealmPaths, find_root
from training.commands import families
from training.realm import Realm

PROGRAM = "python -m training"


class Parser(argparse.ArgumentParser):
    """An argument parser that is short when it refuses and names the nearest verb."""

    def __init__(self, **options):
        super().__init__(**{"allow_abbrev": False, **options})

    def _check_value(self, action: argparse.Action, value) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"unknown: {value!r}{nearest(str(value), known) or '.'} Known: {', '.join(known)}"
            )

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n`{self.prog} --help` explains.\n")


def build_parser(verb: str | None = None) -> Parser:
    """The parser for `verb`; for all verbs where it is none that is known."""
    parser = Parser(prog=PROGRAM, description="The Realm of Training: drop a .jsonl into inbox/, get a better model.")
    parser.add_argument(
        "--root", metavar="DIR", help="the realm's folder (else REALM_ROOT, else the nearest with a config.json)"
    )
    parser.set_defaults(json=False)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for family in families(verb):
        family.register(verbs)
    return parser


def _verb(argv: list[str]) -> str | None:
    """The first word that is neither an option nor the root's name."""
    words = iter(argv)
    for word in words:
        if word == "--root":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return carried_out(build_parser(_verb(argv)).parse_args(argv))


def carried_out(args: argparse.Namespace) -> int:
    """Run what was parsed; its exit code, after whatever went wrong was told in a line. 130: Ctrl-C."""
    try:
        code = args.run(Realm(args)) or 0
        sys.stdout.flush()
        return code
    except RealmError as problem:
        print("\n".join(map(visible, str(problem).split("\n"))), file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    except Exception as problem:
        print(visible(_internal(args, problem)), file=sys.stderr)
    return 1


def _internal(args: argparse.Namespace, problem: Exception) -> str:
    """One line for an error of ours, whose trace goes to the log; or for a full disk."""
    line = f"internal error: {type(problem).__name__}: {problem}".splitlines()[0]
    with contextlib.suppress(RealmError, OSError):
        paths = RealmPaths(find_root(args.root))
        if is_no_space(problem, paths.root):
            return f"the disk is full, so this was not done: {problem}. Free space on it and try again."
        start_logging(paths, "cli", stderr=False)
        logging.getLogger("cli").error("%s failed", args.verb, exc_info=problem)
        return f"{line} (trace: {paths.logs / time.strftime('cli_%Y%m%d.log')})"
    return f"{line} (the trace could not be logged)"
