"""A realm whose tiny hero can really be asked: checkpoints that verify and load, made without torch."""

from pathlib import Path

from model_folders import weights, write_model

from core.checkpoints import Manifest, commit, set_champion, set_current, set_tip
from core.paths import RealmPaths


def hatched(root: Path, count: int = 1) -> tuple[RealmPaths, list[str]]:
    """A realm with so many checkpoints of a hero that talks without end; hero, champion and tip are the last."""
    paths = RealmPaths(root)
    paths.make()
    ids = [another(paths, step) for step in range(count)]
    return paths, ids


def another(paths: RealmPaths, step: int, tensors: dict | None = None, **changes) -> str:
    """One more checkpoint, to which all pointers lead: of `tensors` and `changes` to the tiny config, if they are given."""
    tensors = tensors or {name: tensor * (4 + step) for name, tensor in weights().items()}

    def build(folder: Path) -> None:
        write_model(folder / "made", tensors, **{"max_position_embeddings": 4096, **changes})
        for file in (folder / "made").iterdir():
            file.rename(folder / file.name)
        (folder / "made").rmdir()
        (folder / "optimizer.safetensors").write_bytes(b"0" * 1000)

    checkpoint = commit(paths, Manifest("DIO", "first", step), build).id
    for point in (set_tip, set_current, set_champion):
        point(paths, checkpoint)
    return checkpoint
