"""The realm a command works on: its root, config and ledger, each opened when first asked for. It decides nothing."""

from argparse import Namespace
from collections.abc import Callable
from functools import cached_property

from core.config import Config, load_config
from core.errors import UserError
from core.full_disk import Reserve
from core.ledger import Ledger
from core.paths import RealmPaths, find_root
from core.realm_lock import holder
from training.terminal import as_json


class Realm:
    """What every command is given: the parsed arguments, and access to the realm they name."""

    def __init__(self, args: Namespace):
        self.args = args
        self.paths = RealmPaths(find_root(args.root))

    @cached_property
    def config(self) -> Config:
        return load_config(self.paths.config)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.existing.ledger, Reserve(self.paths).release)

    @property
    def exists(self) -> bool:
        return self.paths.heartbeats.is_dir()

    @property
    def existing(self) -> RealmPaths:
        """The paths of a realm that is there. Raises UserError."""
        if not self.exists:
            raise UserError(
                f"there is no realm in {self.paths.root} yet; `init` makes one, `start-all` makes and starts one"
            )
        return self.paths

    @property
    def runs(self) -> bool:
        return holder(self.paths) is not None

    def refuse_while_running(self, what: str) -> None:
        if self.runs:
            raise UserError(f"the realm runs; {what} while it does not: `stop-all` first")

    def report(self, value, text: str | Callable[[], str]) -> None:
        """Show an answer: `value` with --json, else `text`."""
        if self.args.json:
            print(as_json(value))
        else:
            print(text() if callable(text) else text)
