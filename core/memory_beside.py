"""What the battles of a school hold in memory beside hero and optimizer: another model, keys and values of answers.

It looks at config and at the files of a teacher, and loads nothing.
"""

from pathlib import Path

from core.config import Config
from core.durable import read_json
from core.errors import UserError, nearest
from core.memory_needs import ALONE, ANSWERED_AT_ONCE, Beside, Shape
from core.paths import RealmPaths
from core.school_config import Schools
from core.schools import SCHOOLS
from core.teacher import NO_TEACHER, SETTING
from core.weights_header import weight_files


def beside(paths: RealmPaths, config: Config, school: str | None = None, teacher: str | None = None) -> Beside:
    """Of battles of `school`, the config's by default. `teacher`: a folder, or its name below models/ or in the Vault, in place
    of the config's. Raises UserError."""
    name, schools = school or ("whisper" if teacher else config.school), config.schools
    if name not in SCHOOLS:
        raise UserError(f"unknown school {name!r}{nearest(name, SCHOOLS) or '.'} Known: {', '.join(SCHOOLS)}")
    if teacher and name != "whisper":
        raise UserError(f"the school {name} has no teacher; the Whisper has")
    if name == "whisper":
        return _whisper(paths, schools, teacher)
    if name == "champion":
        return Beside("parent" if schools.champion.beta else "", answers=ANSWERED_AT_ONCE)
    return Beside(answers=ANSWERED_AT_ONCE) if name == "mirror" else ALONE


def expected(paths: RealmPaths, config: Config) -> Beside:
    """Of battles as config.json has them; a teacher that cannot be found is its quests' trouble, not the hero's."""
    try:
        return beside(paths, config)
    except UserError:
        return ALONE


def _whisper(paths: RealmPaths, schools: Schools, teacher: str | None) -> Beside:
    settings = schools.whisper
    named = teacher or settings.teacher
    if named is None:
        if settings.url is None:
            raise UserError(NO_TEACHER)
        return ALONE  # it answers elsewhere
    folder = _folder(paths, named)
    shape = Shape.read(folder)
    numbers = 3 if settings.beta in (0, 1) else 4  # core/forge/divergence.py
    return Beside("teacher", shape, _weights(folder, shape), numbers, ANSWERED_AT_ONCE if settings.on_policy else 0)


def _weights(folder: Path, shape: Shape) -> int:
    """Bytes of its files; where there are none yet, of what its config.json says they will hold."""
    if any(folder.glob("*.safetensors")):
        return sum((folder / name).stat().st_size for name in weight_files(folder))
    values = read_json(folder / "config.json", {})
    kind = values.get("dtype") or values.get("torch_dtype") or "float32"
    return shape.parameters * (4 if kind == "float32" else 2)


def _folder(paths: RealmPaths, name: str) -> Path:
    for folder in (Path(name).expanduser(), paths.models / name, paths.vault / name):
        if (folder / "config.json").is_file():
            return folder
    raise UserError(f"{SETTING} = {name!r}: no folder with a config.json, neither here nor in {paths.models}")
