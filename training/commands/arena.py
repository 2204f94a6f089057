"""`arena COMMAND`, or its shell: train, set against each other and improve miniature GPTs by what they spend.

One table of commands serves the command line and the shell (training/arena_shell.py). What needs no agent alive answers
without torch.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.arena import play
from core.arena.league import Arena
from core.arena.shape import Shape
from core.errors import UserError, nearest
from core.line_chart import Curve, line_chart
from training import arena_text, text_chart
from training.commands import arena_arguments as takes
from training.commands.verb import verb
from training.realm import Realm


@dataclass(frozen=True)
class Command:
    """A command: what it takes (`usage`), what it is for, its arguments and what it does."""

    name: str
    usage: str
    help: str
    run: Callable[[Realm], int | None]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def register(verbs) -> None:
    parser = verb(verbs, "arena", open_shell, "miniature GPTs: train, battle, generate; without a command, its shell")
    add_commands(parser)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Every command as one of `parser`'s own."""
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.arguments(verb(actions, command.name, command.run, command.help))


def open_shell(realm: Realm) -> int:
    from training.arena_shell import ArenaShell

    return ArenaShell(realm).run()


# Acts


def create_agent(realm: Realm) -> None:
    args = realm.args
    shape = Shape(args.n_embd, args.n_layer, args.n_head)
    _tell(realm, play.create(Arena(realm.paths), args.name, shape, args.data, args.seed), arena_text.created)


def switch_agent(realm: Realm) -> None:
    _tell(realm, play.switch(Arena(realm.paths), realm.args.name), arena_text.chosen)


def delete_agent(realm: Realm) -> None:
    facts = play.delete(Arena(realm.paths), realm.args.name)
    realm.report(facts, f"{facts['deleted']} is gone.")


def agents(realm: Realm) -> None:
    book = Arena(realm.paths).read()
    rows = [record.facts() | {"current": name == book.current} for name, record in book.agents.items()]
    _tell(realm, rows, arena_text.agents)


def train(realm: Realm) -> None:
    args = realm.args
    with _caller(realm) as caller:
        facts = play.train(Arena(realm.paths), args.agent, args.steps, args.data, caller)
    _tell(realm, facts, arena_text.trained)


def generate(realm: Realm) -> None:
    args = realm.args
    with _caller(realm) as caller:
        facts = play.generate(Arena(realm.paths), args.agent, args.count, args.seed, args.data, caller)
    _tell(realm, facts, arena_text.generated)


def battle(realm: Realm) -> None:
    from core.arena.battle import Terms, battle

    args = realm.args
    terms = Terms(args.steps, args.equal_energy, args.names)
    with _caller(realm) as caller:
        facts = battle(Arena(realm.paths), args.one, args.other, terms, args.data, caller)
    _tell(realm, facts, arena_text.fought)


def battles(realm: Realm) -> None:
    _tell(realm, Arena(realm.paths).read().battles, arena_text.battles)


def leaderboard(realm: Realm) -> None:
    _tell(realm, Arena(realm.paths).read().leaderboard(), arena_text.leaderboard)


def energy(realm: Realm) -> None:
    book = Arena(realm.paths).read()
    facts = {"energy": book.energy, "full": play.FULL, "rests": book.rests, "agent": book.current}
    told = f"{arena_text.energy_text(book.energy)} of {play.FULL:,.0f} energy; `rest` fills it up."
    realm.report(facts, told)


def rest(realm: Realm) -> None:
    _tell(realm, play.rest(Arena(realm.paths)), arena_text.rested)


def config(realm: Realm) -> None:
    args = realm.args
    _tell(realm, play.settings(Arena(realm.paths), args.agent, args.setting, args.value), arena_text.settings)


def save(realm: Realm) -> None:
    facts = play.save(Arena(realm.paths), *_agent_and_slot(realm, saves=True))
    realm.report(facts, f"{facts['agent']} at step {facts['step']:,} is saved as {facts['saved']}.")


def load(realm: Realm) -> None:
    facts = play.load(Arena(realm.paths), *_agent_and_slot(realm, saves=False))
    realm.report(
        facts, f"{facts['agent']} is again as it was when {facts['loaded']} was saved, at step {facts['step']:,}."
    )


def _agent_and_slot(realm: Realm, saves: bool) -> tuple[str | None, str]:
    """A word that names an agent means that agent, unless a state of the current one's own is looked for; any other is the
    name of the saved state. Raises UserError for one so near an agent's that it may be a slip."""
    agent, slot = realm.args.agent, realm.args.slot
    if slot is None or agent is not None:
        return agent, play.SLOT if slot is None else slot
    book = Arena(realm.paths).read()
    own = book.agents[book.current].saved if book.current else {}
    if slot in book.agents and (saves or slot not in own):
        return slot, play.SLOT
    if saves and slot not in own and (meant := nearest(slot, book.agents)):
        raise UserError(
            f"there is no agent {slot[:40]!r}{meant} To call a state so, say whose it is: `save {slot[:40]} --agent "
            f"{book.current}`"
        )
    return None, slot


def diagnose(realm: Realm) -> None:
    from core.arena.diagnose import diagnose
    from core.arena.look import look

    args = realm.args
    agent, samples = look(Arena(realm.paths), args.agent, args.data)
    facts = {"agent": agent.record.name, "step": agent.step, "findings": diagnose(agent, samples)}
    _tell(realm, facts, arena_text.diagnosed)


def visualize(realm: Realm) -> None:
    args, arena = realm.args, Arena(realm.paths)
    record, losses, norms = arena.past(args.agent)
    values, title, unit = (
        (losses, "loss", "nats per character") if args.what == "loss" else (norms, "gradient norm", "norm")
    )
    if not values:
        raise UserError(f"{record.name} has not been trained yet, so there is nothing to show; `train 60`")
    facts: dict[str, Any] = {"agent": record.name, "what": args.what, "step": record.state.step, "values": values}
    text = [f"{record.name}: {title} by step", text_chart.text_chart(values)]
    if args.what == "gradients":
        from core.arena.diagnose import layer_norms
        from core.arena.look import look

        facts["layers"] = layer_norms(*look(arena, record.name, None))
        text += ["", "the gradient's norm at each place, now (by its logarithm)", text_chart.bars(facts["layers"])]
    facts["picture"] = str(_picture(arena, args.out, record.name, args.what, title, unit, values))
    realm.report(facts, "\n".join([*text, "", f"picture: {facts['picture']}"]))


def _picture(arena: Arena, out: Path | None, name: str, what: str, title: str, unit: str, values: list[float]) -> Path:
    """Draw it where the player wants it, else among the arena's pictures."""
    path = out or arena.paths.arena_pictures / f"{name}_{what}.svg"
    try:
        drawn = line_chart(f"{name}: {title}", "", [Curve(name, list(enumerate(values, 1)))], "step", unit)
    except ValueError:
        raise UserError(f"{name}: none of its {what} is a number; `diagnose` says why") from None
    try:
        if out is None:
            path.parent.mkdir(exist_ok=True)
        path.write_text(drawn, encoding="utf-8")
    except OSError as problem:
        raise UserError(f"--out {path}: {problem.strerror}; name a file in a folder that is there") from None
    return path.resolve()


def promote(realm: Realm) -> None:
    from core.arena.look import look
    from core.arena.promote import promote

    agent, _ = look(Arena(realm.paths), realm.args.agent if realm.args.name is None else realm.args.name, None)
    folder = promote(realm.paths, agent)
    facts = {"agent": agent.record.name, "model": folder.name, "path": str(folder), "step": agent.step}
    realm.report(facts, f"{folder.name} is in models/. `hero switch {folder.name}` makes a hero of it.")


def help_of(realm: Realm) -> int | None:
    wanted = realm.args.about
    known = {command.name: command for command in COMMANDS}
    if wanted and wanted not in known:
        raise UserError(f"unknown: {wanted!r}{nearest(wanted, known) or '.'} Known: {', '.join(known)}")
    shown = [known[wanted]] if wanted else COMMANDS
    rows = [{"command": command.name, "usage": command.usage, "help": command.help} for command in shown]
    realm.report(rows, lambda: arena_text.commands([(row["usage"], row["help"]) for row in rows]))


def _tell(realm: Realm, facts: Any, text: Callable[[Any], str]) -> None:
    realm.report(facts, lambda: text(facts))


COMMANDS = (
    Command(
        "create_agent",
        "create_agent NAME N_EMBD N_LAYER N_HEAD",
        "a new agent, with random weights",
        create_agent,
        takes.of_create,
    ),
    Command("switch_agent", "switch_agent NAME", "make another agent the current one", switch_agent, takes.of_name),
    Command("agents", "agents", "the agents; * is the current one", agents),
    Command("train", "train STEPS", "let it learn names, or the text of --data FILE", train, takes.of_train),
    Command("generate", "generate [COUNT]", "let it write, and see what that is worth", generate, takes.of_generate),
    Command(
        "battle", "battle A B STEPS", "both learn the same, then write; the better one wins", battle, takes.of_battle
    ),
    Command("leaderboard", "leaderboard", "score for each energy spent, Elo, battles won", leaderboard),
    Command("battles", "battles", "the battles on record", battles),
    Command("config", "config [SETTING [VALUE]]", "see or set how it learns and writes", config, takes.of_config),
    Command(
        "visualize",
        "visualize loss|gradients",
        "a curve here, and as a picture in a file",
        visualize,
        takes.of_visualize,
    ),
    Command("diagnose", "diagnose", "what is wrong with it, where, and what to do", diagnose, takes.of_diagnose),
    Command("save", "save [STATE]", "keep it as it is now", save, takes.of_state),
    Command("load", "load [STATE]", "go back to a saved state", load, takes.of_state),
    Command("energy", "energy", "what you may still spend", energy),
    Command("rest", "rest", "fill the energy up", rest),
    Command("promote", "promote [NAME]", "make it a base model of the realm, in models/", promote, takes.of_promote),
    Command("delete_agent", "delete_agent NAME", "remove an agent and its saved states", delete_agent, takes.of_name),
    Command("help", "help [COMMAND]", "this list", help_of, takes.of_help),
)


# Who plays


@contextlib.contextmanager
def _caller(realm: Realm) -> Iterator[play.Caller]:
    """A player at a terminal: a line tells how far it is, and Ctrl-C ends it between two steps; pressed again, at once."""
    left: list[int] = []

    def leave(number: int, frame) -> None:
        if left:
            raise KeyboardInterrupt
        left.append(number)

    def orphaned() -> bool:  # asked, not signalled: the kernel's signal comes when a thread of the parent ends
        return getattr(realm.args, "parent", None) not in (None, os.getppid())

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    shows = sys.stderr.isatty() and not realm.args.json
    try:
        yield play.Caller(_show if shows else lambda facts: None, _wait, lambda: bool(left) or orphaned())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _show(facts: dict[str, Any]) -> None:
    if facts["phase"] != "done":
        print(f"\r\x1b[K{arena_text.pace(facts)}", end="", file=sys.stderr, flush=True)


def _wait(who: str) -> None:
    print(f"waiting: the arena is in use: {who}", file=sys.stderr, flush=True)
