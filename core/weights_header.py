"""What safetensors files say of themselves, read without loading a tensor: names, shapes, and that all is where it should be.

It knows nothing about models. A header comes from a stranger: it is read only up to `HEADER_BYTES`, and an index may name
files of its own folder only.
"""

import math
from pathlib import Path
from typing import Any

import orjson

from core.errors import UserError
from core.regular_file import open_regular

HEADER_BYTES = 16 << 20  # a thousand layers need one
INDEX_BYTES = 16 << 20
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

Shapes = dict[str, tuple[int, ...]]


def weight_files(folder: Path) -> list[str]:
    """The names of the files that hold a model's weights. Raises UserError."""
    if (folder / SINGLE).exists() or (folder / SINGLE).is_symlink():
        return [SINGLE]
    if not (folder / INDEX).exists():
        raise UserError(f"it has no {SINGLE}; other kinds of weight files are never loaded")
    with open_regular(folder / INDEX) as file:
        content = file.read(INDEX_BYTES + 1)
    if len(content) > INDEX_BYTES:
        raise UserError(f"{INDEX} is larger than {INDEX_BYTES >> 20} MiB; copy it from the model's source again")
    try:
        names = set(orjson.loads(content)["weight_map"].values())
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UserError(f"{INDEX} has no weight_map; copy it from the model's source again") from None
    for name in names:
        if not isinstance(name, str) or name != Path(name).name or not name.endswith(".safetensors") or "\\" in name:
            raise UserError(f"{INDEX} names {str(name)[:80]!r}; it may name .safetensors files of its own folder only")
    if not names:
        raise UserError(f"{INDEX} names no file; copy it from the model's source again")
    return sorted(names)


def shapes(folder: Path) -> Shapes:
    """The shape of every tensor in the model's weight files. Raises UserError naming the file."""
    found: Shapes = {}
    for name in weight_files(folder):
        found |= _shapes(folder / name)
    return found


def _shapes(path: Path) -> Shapes:
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UserError(f"{path.name} is cut off or no safetensors file; copy it again")
        if length > HEADER_BYTES:
            raise UserError(f"{path.name} has a header of {length:,} bytes, at most {HEADER_BYTES:,} are read")
        header = file.read(length)
    try:
        entries = orjson.loads(header)
        entries.pop("__metadata__", None)
        return {name: _shape(path, name, entry, size - 8 - length) for name, entry in entries.items()}
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path.name} is no safetensors file, its header cannot be read; copy it again") from None


def _shape(path: Path, name: str, entry: dict[str, Any], size: int) -> tuple[int, ...]:
    kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in SIZES:
        raise UserError(
            f"{path.name}: {name[:80]} is of type {str(kind)[:20]!r}; a hero's weights are {', '.join(SIZES)}"
        )
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(name)
    if end > size or end - begin != math.prod(shape) * SIZES[kind]:
        raise UserError(
            f"{path.name}: {name[:80]} does not fit into the file, which is cut off or altered; copy it again"
        )
    return tuple(shape)
