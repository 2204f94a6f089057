"""The teacher of a battle: a model in a folder below models/, or a checkpoint, with the hero's own tokenizer. It imports no torch.

One that answers from a server is core/teacher_server.py's; which of both it is, `check_settings` says.
"""

import hashlib
from pathlib import Path
from typing import Any

import psutil

from core import checkpoints, model_folder
from core.errors import CheckpointError, UserError, nearest
from core.memory_needs import GIB
from core.paths import RealmPaths
from core.quest import Settings
from core.row_forms import ASKED
from core.school_config import WhisperSettings
from core.weights_header import weight_files

SETTING = "schools.whisper.teacher"
NO_TEACHER = (
    "the school whisper needs a teacher: set schools.whisper.teacher, in the sidecar or config.json, to a folder below models/ or "
    "a checkpoint with the hero's own tokenizer, or schools.whisper.url, in config.json, to a server that answers"
)
TRAININGS_OWN = ("optimizer.safetensors",)  # of a checkpoint's files
SHOWN = 40


def check_settings(whisper: WhisperSettings, form: str) -> None:
    """Whether rows of `form` can be taught under these settings. Raises UserError."""
    if whisper.teacher and whisper.url:
        raise UserError(
            f"{SETTING} = {whisper.teacher!r} and schools.whisper.url = {whisper.url!r} are two teachers; set one of them to null"
        )
    if not whisper.teacher and not whisper.url:
        raise UserError(NO_TEACHER)
    if whisper.url is None:
        if whisper.temperature == 0:
            raise UserError(
                "schools.whisper.temperature = 0: distributions are divided by it; leave it out, or set it above 0"
            )
        if form == ASKED.name:
            raise UserError("rows with nothing but a prompt need a teacher that answers: set schools.whisper.url")
        return
    if not whisper.model:
        raise UserError("schools.whisper.model is not set: name the model that schools.whisper.url serves")
    if whisper.on_policy:
        raise UserError(
            "schools.whisper.on_policy needs a teacher beside the hero; a server's answers are its own: set it to 0"
        )
    if form == "text":
        raise UserError("the teacher of schools.whisper.url answers conversations; rows with plain text ask nothing")


def teacher_folder(paths: RealmPaths, name: str | None) -> Path:
    """Where the teacher lies, its files looked through. Raises UserError."""
    if not name:
        raise UserError(
            f"{SETTING} is not set; name a folder below models/, or a checkpoint, with the hero's own tokenizer"
        )
    own, kept = ({each.name for each in folder.iterdir() if each.is_dir() and not each.is_symlink()}
                 for folder in (paths.models, paths.vault))  # fmt: skip
    if name in kept:
        try:
            checkpoints.verify(paths.vault / name, skip=TRAININGS_OWN)
        except CheckpointError as problem:
            raise UserError(f"{SETTING}: {problem}") from problem
        return paths.vault / name
    if name not in own - {paths.vault.name}:
        raise UserError(
            f"{SETTING} = {name!r}: there is no folder models/{name} and no such checkpoint{nearest(name, own | kept)}"
        )
    if problem := model_folder.problem(paths.models / name):
        raise UserError(f"{SETTING} = {name!r}: {problem}")
    return paths.models / name


def name_of_weights(paths: RealmPaths, settings: Settings) -> str | None:
    """The SHA-256 of what the teacher of a battle knows: of its one file of weights, or of the sums of several; None where none
    is heard, or it is not there."""
    name = settings.schools.whisper.teacher if settings.school == "whisper" else None
    folder = next((where / name for where in (paths.vault, paths.models) if name and (where / name).is_dir()), None)
    if folder is None:
        return None
    try:
        sums = [checkpoints.sha256_of(folder / each) for each in weight_files(folder)]
    except (UserError, OSError):  # whoever loads it says what is wrong
        return None
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def check_tokenizer(teacher: Path, hero: Path) -> None:
    """Whether both give every token the same number. Raises UserError naming the first that differs."""
    theirs, ours = (folder / "tokenizer.json" for folder in (teacher, hero))
    if theirs.read_bytes() == ours.read_bytes():
        return
    known, wanted = (_tokens(path) for path in (theirs, ours))
    if differing := [
        number for number in sorted(known.keys() | wanted.keys()) if known.get(number) != wanted.get(number)
    ]:
        first = differing[0]
        raise UserError(
            f"{SETTING} = {teacher.name!r}: its tokenizer is another: {len(differing):,} of {len(wanted):,} tokens differ, "
            f"number {first} is {_shown(known.get(first))} there and {_shown(wanted.get(first))} here; distillation "
            "compares tokens, so take a teacher of the hero's family"
        )


def check_room(teacher: Path, free_bytes: int | None = None) -> None:
    """Whether its weights fit beside the hero. `free_bytes`: of the device, main memory's by default. Raises UserError."""
    needed = sum(file.stat().st_size for file in (teacher / name for name in weight_files(teacher)))
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    if needed > free:
        raise UserError(
            f"{SETTING} = {teacher.name!r}: its weights take {needed / GIB:.2f} GiB, {free / GIB:.2f} GiB are free; take a "
            "smaller teacher"
        )


def _tokens(path: Path) -> dict[int, str]:
    from tokenizers import Tokenizer  # the Tavern, which plans for a teacher, reads none

    return {number: token for token, number in Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).items()}


def _shown(token: Any) -> str:
    return "none" if token is None else repr(token[:SHOWN])
