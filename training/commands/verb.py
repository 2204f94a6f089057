"""How a verb is put on the command line: every one takes --root and --json; it knows no verb by name."""

import argparse
from collections.abc import Callable

from training.realm import Realm


def verb(actions, name: str, run: Callable[[Realm], int | None], help: str) -> argparse.ArgumentParser:
    """Add the verb `name` that calls `run(realm)`; the parser is returned for more arguments."""
    parser = actions.add_parser(name, help=help, description=help)
    _take_root(parser)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer as JSON")
    parser.set_defaults(run=run)
    return parser


def group(verbs, name: str, help: str):
    """Add a verb that only has verbs of its own, and return the place to add them to."""
    parser = verbs.add_parser(name, help=help, description=help)
    _take_root(parser)
    return parser.add_subparsers(metavar="VERB", dest="action", required=True)


def _take_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help="the realm's folder")
