"""What each of the arena's commands takes on its line. It knows no act.

What can never be right, whatever the arena holds, is refused here as wrong usage.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from core.arena.shape import MOST

MOST_STEPS, MOST_TEXTS = 1_000_000, 10_000


def whole(least: int, most: int) -> Callable[[str], int]:
    """A type of argument: a whole number within bounds."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdecimal() or not least <= int(text[:20]) <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} must be a whole number from {least:,} to {most:,}")
        return int(text)

    return read


def file(text: str) -> Path:
    """A type of argument: a path, in which ~ is the player's home, for the arena's shell is none that would replace it."""
    return Path(os.path.expanduser(text))


def _takes_agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agent", metavar="NAME", help="instead of the current one")


def _takes_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", metavar="FILE", type=file, help="a text, one sample a line, instead of what it learns now"
    )


def of_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    for name, most in MOST.items():
        parser.add_argument(name, metavar=name.upper(), type=whole(1, most))
    _takes_data(parser)
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), help="of its first weights and its order (its name's)")


def of_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")


def of_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("steps", metavar="STEPS", type=whole(1, MOST_STEPS))
    _takes_agent(parser)
    _takes_data(parser)


def of_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", metavar="COUNT", type=whole(1, MOST_TEXTS), nargs="?", default=10)
    _takes_agent(parser)
    _takes_data(parser)
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), help="the same texts again; others each time, unless given")


def of_battle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", metavar="A")
    parser.add_argument("other", metavar="B")
    parser.add_argument("steps", metavar="STEPS", type=whole(1, MOST_STEPS))
    _takes_data(parser)
    parser.add_argument(
        "--equal-energy", action="store_true", help="each takes as many steps as the cheaper one's would pay"
    )
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # a process with which the battle ends
    parser.add_argument("--names", type=whole(1, MOST_TEXTS), default=50, help="texts that each writes (50)")


def of_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("setting", metavar="SETTING", nargs="?")
    parser.add_argument("value", metavar="VALUE", nargs="?")
    _takes_agent(parser)


def of_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slot", metavar="STATE", nargs="?", help="the state's name (saved), or an agent's")
    _takes_agent(parser)


def of_visualize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="loss|gradients", choices=("loss", "gradients"))
    parser.add_argument("--out", metavar="FILE", type=file, help="where the picture (SVG) goes")
    _takes_agent(parser)


def of_diagnose(parser: argparse.ArgumentParser) -> None:
    _takes_agent(parser)
    _takes_data(parser)


def of_promote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?")
    _takes_agent(parser)


def of_help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("about", metavar="COMMAND", nargs="?")
