"""Every folder and file name of a realm, spelled once; it knows nothing about what the files hold."""

import os
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError

PRIORITIES = ("high", "normal", "low")
QUEUE_STATES = (*PRIORITIES, "processing", "recently_completed", "failed", "rejected")
CHECKOUT = Path(__file__).resolve().parent.parent
BUNDLED_TOKENIZER = CHECKOUT / "core" / "assets" / "tokenizer"
LEXICON = CHECKOUT / "core" / "assets" / "lexicon.txt"
ARENA_NAMES = CHECKOUT / "core" / "assets" / "names.txt"


@dataclass(frozen=True)
class RealmPaths:
    """The places of one realm below `root`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    def inbox_for(self, priority: str) -> Path:
        """Where a file is dropped to get `priority`; the inbox itself means normal."""
        return self.inbox if priority == "normal" else self.inbox / priority

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    def queued(self, state: str) -> Path:
        assert state in QUEUE_STATES, state
        return self.queue / state

    @property
    def claims(self) -> Path:
        """Files taken from the inbox and not judged yet."""
        return self.queue / ".claim"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def vault(self) -> Path:
        return self.models / "vault"

    @property
    def current_model(self) -> Path:
        return self.models / "current_model"

    @property
    def tip(self) -> Path:
        return self.vault / "tip"

    @property
    def champion(self) -> Path:
        return self.vault / "champion"

    @property
    def trash(self) -> Path:
        """Deleted checkpoints, as long as they can be brought back."""
        return self.vault / ".trash"

    @property
    def exports(self) -> Path:
        """Models to be used elsewhere, where no other place is named."""
        return self.root / "exports"

    @property
    def runs(self) -> Path:
        """Copies of the numbers for TensorBoard and Trackio."""
        return self.root / "runs"

    @property
    def status(self) -> Path:
        return self.root / "status" / "training_status.json"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def ledger(self) -> Path:
        return self.state / "realm.db"

    @property
    def metrics(self) -> Path:
        return self.state / "metrics.db"

    def replay(self, hero: str) -> Path:
        """Rows of the earlier quests of a hero that are trained again beside later ones."""
        return self.state / "replay" / hero

    @property
    def prepared(self) -> Path:
        """Tokenised quests, a cache that can be deleted at any time."""
        return self.state / "prepared"

    @property
    def heartbeats(self) -> Path:
        return self.state / "heartbeats"

    @property
    def lock(self) -> Path:
        return self.state / "realm.lock"

    @property
    def queue_lock(self) -> Path:
        """Held by whoever moves a quest."""
        return self.state / "queue.lock"

    @property
    def services(self) -> Path:
        return self.state / "services.json"

    @property
    def token(self) -> Path:
        """The key to the Tavern, where one is asked for."""
        return self.state / "token"

    @property
    def oracle_wish(self) -> Path:
        """Present while somebody wants the local Oracle."""
        return self.state / "oracle.wanted"

    @property
    def oracle_place(self) -> Path:
        """Where the local Oracle listens, as it said itself."""
        return self.state / "oracle.json"

    @property
    def oracle_key(self) -> Path:
        """The key to the box that `oracle.url` names, if it asks for one."""
        return self.state / "oracle.key"

    @property
    def whisper_key(self) -> Path:
        """The key to the server that `schools.whisper.url` names, if it asks for one."""
        return self.state / "whisper.key"

    @property
    def asking(self) -> Path:
        """How far the daemon is that asks a teacher."""
        return self.state / "asking.json"

    @property
    def kernels(self) -> Path:
        """What torch.compile made for this hero, a cache that can be deleted at any time."""
        return self.state / "kernels"

    @property
    def pack_limits(self) -> Path:
        """How large a pass may be since memory ran out, by hero."""
        return self.state / "pack_limits.json"

    @property
    def prompts(self) -> Path:
        """Hashes of the prompts that heroes practised by themselves."""
        return self.state / "prompts.db"

    @property
    def disk_word(self) -> Path:
        """What the disk manager said last."""
        return self.state / "disk.json"

    @property
    def reserve(self) -> Path:
        """Bytes and inodes that are given back when the disk is full."""
        return self.state / "reserve"

    @property
    def arena(self) -> Path:
        """Agents, their weights, and the player's energy."""
        return self.state / "arena"

    @property
    def arena_book(self) -> Path:
        """All that the arena remembers but weights and texts."""
        return self.arena / "arena.json"

    @property
    def arena_lock(self) -> Path:
        """Held by whoever changes the arena; its text says who and what for."""
        return self.arena / "arena.lock"

    def arena_now(self, kind: str) -> Path:
        """How far the training or the battle that runs is, or was when it ended."""
        return self.arena / f"{kind}.json"

    @property
    def arena_history(self) -> Path:
        """What was typed into the arena's shell."""
        return self.arena / "history"

    def arena_agent(self, name: str) -> Path:
        """The weights of an agent, a file for each state that is kept."""
        return self.arena / "agents" / name

    @property
    def arena_texts(self) -> Path:
        """Texts that agents learn from, by their SHA-256."""
        return self.arena / "texts"

    @property
    def arena_pictures(self) -> Path:
        return self.arena / "pictures"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def folders(self) -> tuple[Path, ...]:
        """All the folders that `make` creates."""
        queues = tuple(self.queued(state) for state in QUEUE_STATES)
        return (
            self.inbox,
            self.inbox / "high",
            self.inbox / "low",
            *queues,
            self.claims,
            self.vault,
            self.status.parent,
            self.heartbeats,
            self.prepared,
            self.logs,
        )

    def written(self) -> tuple[Path, ...]:
        """The folders in which only the realm itself writes, as far as they are there."""
        others = tuple(folder for folder in self.folders() if self.inbox not in (folder, folder.parent))
        return tuple(filter(Path.is_dir, (self.root, self.models, self.state, *others)))

    def make(self) -> None:
        for folder in self.folders():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise UserError(
                    f"a realm cannot be made in {self.root}: {folder}: {problem.strerror}. Give another --root."
                ) from None


def find_root(given: str | None = None, start: Path | None = None) -> Path:
    """The realm's folder: `--root`, else `REALM_ROOT`, else the nearest folder upwards with a config.json, else the checkout."""
    named = given or os.environ.get("REALM_ROOT")
    if named:
        root = Path(named).expanduser().resolve()
        if root.exists() and not root.is_dir():
            raise UserError(f"{root} is a file; a realm is a folder. Give another --root.")
        return root
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "config.json").is_file() and not _is_model(folder):
            return folder
    return CHECKOUT


def _is_model(folder: Path) -> bool:
    """Models have a config.json, too; who stands in one means the realm around it."""
    return b'"model_type"' in (folder / "config.json").read_bytes()
