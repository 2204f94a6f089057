"""The models that can be asked: those of a realm's Vault by name, or one folder. It loads none, and joins no name to a path.

`hero` is what models/current_model leads to, `champion` what that pointer says; checkpoints go by their ids.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core import model_folder
from core.chat_request import CHAMPION, HERO
from core.checkpoints import STATE_FILES, Manifest, holding, manifests, pointed, read, verify
from core.errors import CheckpointError, UserError, nearest
from core.paths import RealmPaths

MOST_LISTED = 500


class UnknownModel(UserError):
    """Nobody here answers by that name."""


@dataclass(frozen=True)
class Model:
    """A name that a request may use, and the checkpoint it means; None where it means a folder."""

    name: str
    checkpoint: str | None
    step: int | None
    created: float

    def facts(self) -> dict[str, Any]:
        """As `GET /v1/models` lists it."""
        return {
            "id": self.name,
            "object": "model",
            "created": int(self.created),
            "owned_by": "realm",
            "checkpoint": self.checkpoint,
            "step": self.step,
        }


class Shelf(Protocol):
    """Where models stand: `models` lists them, `find` is strict, `check` makes sure of one before it is loaded."""

    def models(self) -> list[Model]: ...

    def find(self, name: str) -> tuple[str, Path]: ...

    def check(self, key: str) -> None: ...


class VaultShelf:
    """The checkpoints of a realm."""

    def __init__(self, paths: RealmPaths):
        self._paths = paths

    def models(self) -> list[Model]:
        """hero and champion, then every checkpoint by its id, the newest first."""
        known = manifests(self._paths)[:MOST_LISTED]
        by_id = {manifest.id: manifest for manifest in known}
        named = [(name, by_id.get(checkpoint)) for name, checkpoint in self._pointers().items()]
        pairs = [*named, *((manifest.id, manifest) for manifest in known)]
        return [_model(name, manifest) for name, manifest in pairs if manifest is not None]

    def find(self, name: str) -> tuple[str, Path]:
        """The id and folder of the model called `name`. Raises UserError."""
        pointers = self._pointers()
        known = {manifest.id for manifest in manifests(self._paths)}
        if name in (HERO, CHAMPION) and name not in pointers:
            raise UnknownModel(f"There is no {name} yet; `start-all` hatches one within a minute.")
        checkpoint = pointers.get(name, name)
        if checkpoint not in known:
            near = nearest(checkpoint, [*pointers, *known]) or "."
            raise UnknownModel(f"There is no model {name[:80]!r}{near} `GET /v1/models` lists them.")
        return checkpoint, self._paths.vault / checkpoint

    def check(self, key: str) -> None:
        """Compare the files that answering reads with the manifest. Raises CheckpointError."""
        folder = self._paths.vault / key
        with holding(folder):
            verify(folder, skip=STATE_FILES)

    def _pointers(self) -> dict[str, str]:
        links = {HERO: self._paths.current_model, CHAMPION: self._paths.champion}
        return {name: checkpoint for name, link in links.items() if (checkpoint := pointed(link))}


class FolderShelf:
    """One model in a folder of its own, e.g. an export. It answers by the folder's name, and as `hero`."""

    def __init__(self, folder: Path):
        self._folder = folder.resolve()

    def models(self) -> list[Model]:
        created = self._folder.stat().st_mtime
        try:
            manifest = read(self._folder)
        except CheckpointError:
            manifest = None
        checkpoint, step = (manifest.id, manifest.step) if manifest else (None, None)
        return [Model(name, checkpoint, step, created) for name in (HERO, self._folder.name)]

    def find(self, name: str) -> tuple[str, Path]:
        if name not in (HERO, self._folder.name):
            raise UnknownModel(f"There is no model {name[:80]!r}; here {self._folder.name!r} answers.")
        return self._folder.name, self._folder

    def check(self, key: str) -> None:
        """Look the folder through without loading it. Raises UserError."""
        if problem := model_folder.problem(self._folder):
            raise UserError(f"{self._folder}: {problem}")


def _model(name: str, manifest: Manifest) -> Model:
    return Model(name, manifest.id, manifest.step, manifest.created)
