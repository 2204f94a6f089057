"""The arena's shell: lines in, commands of training/commands/arena.py out, with a history that stays and completion.

It knows how a line becomes a command, not what a command does. Read from a pipe it is a script: all lines are tried, and the
exit code is 1 if one of them failed.
"""

import cmd
import contextlib
import shlex
import sys
from dataclasses import fields

from core.arena.league import Arena
from core.arena.records import Settings
from core.errors import RealmError
from training.arena_text import energy_text
from training.cli import Parser, carried_out
from training.commands.arena import COMMANDS, add_commands
from training.realm import Realm

INTERRUPTED = 130
LEAVE = ("quit", "exit")
KEPT_LINES = 1000
NAMES_AGENT = ("switch_agent", "battle", "promote", "delete_agent")


class ArenaShell(cmd.Cmd):
    """`run` reads commands until `quit` or the end of the input."""

    def __init__(self, realm: Realm):
        super().__init__()
        self._realm, self._arena = realm, Arena(realm.paths)
        self._parser = Parser(prog="arena", add_help=False)
        self._parser.set_defaults(verb="arena", json=realm.args.json, root=realm.args.root)
        add_commands(self._parser)
        self._failed = False
        self._typed = sys.stdin.isatty()
        self.use_rawinput = self._typed
        self.intro = "The arena. `help` lists what can be done, `quit` leaves." if self._typed else None

    @property
    def prompt(self) -> str:
        if not self._typed:
            return ""
        try:
            book = self._arena.read()
        except RealmError:  # every command says what is wrong with it
            return "arena ?> "
        return f"arena {book.current or '-'} {energy_text(book.energy)}> "

    def run(self) -> int:
        with self._history():
            while self._interrupted():
                self.intro = None
        return 1 if self._failed and not self._typed else 0

    def _interrupted(self) -> bool:
        """Read and obey until the end; whether Ctrl-C at the prompt came first, which only leaves the line."""
        try:
            self.cmdloop()
        except KeyboardInterrupt:
            if not self._typed:
                raise
            print()
            return True
        return False

    def onecmd(self, line: str) -> bool:
        """One command; whether the shell ends."""
        if line == "EOF":
            if self._typed:
                print()
            return True
        try:
            words = shlex.split(line, comments=True)
        except ValueError as problem:
            return self._refuse(f"{problem}: {line}")
        if not words:
            return False
        if words[0] in LEAVE:
            return True
        try:
            code = carried_out(self._parser.parse_args(words))
        except SystemExit as ended:  # the parser's: it has said why
            code = ended.code
        if code == INTERRUPTED:
            return self._refuse("broken off")
        self._failed |= bool(code)
        return False

    def _refuse(self, why: str) -> bool:
        print(why, file=sys.stderr, flush=True)
        self._failed = True
        return False

    # What can be typed: each with the space behind it, which readline leaves to us

    def completenames(self, text: str, *ignored) -> list[str]:
        return [f"{name} " for name in (*(command.name for command in COMMANDS), *LEAVE) if name.startswith(text)]

    def completedefault(self, text: str, line: str, begidx: int, endidx: int) -> list[str]:
        """Agents, settings, saved states, topics: whatever the command at the line's beginning takes."""
        words = line[:begidx].split()
        return sorted(f"{each} " for each in self._choices(words) if each.startswith(text))

    def _choices(self, words: list[str]) -> set[str]:
        command, book = words[0] if words else "", self._arena.read()
        if command in NAMES_AGENT or words[-1:] == ["--agent"]:
            return set(book.agents)
        if command == "help":
            return {each.name for each in COMMANDS}
        if command == "config" and len(words) == 1:
            return {each.name for each in fields(Settings)}
        if command == "visualize":
            return {"loss", "gradients"}
        if command in ("save", "load"):
            record = book.agents.get(book.current or "")
            return set(book.agents) | set(record.saved if record else ())
        return {"--agent", "--data", "--json"}

    @contextlib.contextmanager
    def _history(self):
        """The lines of earlier times, and these kept for later ones."""
        if not self._typed:
            yield
            return
        import readline

        path = self._realm.paths.arena_history
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
        readline.set_completer_delims(" \t\n")
        try:
            yield
        finally:
            readline.set_history_length(KEPT_LINES)
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(path)
