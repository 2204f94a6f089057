"""Whether a model's weights are all numbers, read from its safetensors files a piece at a time. Knows no torch."""

import mmap
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import orjson

from core.errors import CheckpointError

PIECE_BYTES = 64 << 20
EXPONENTS = {"F32": (np.uint32, 0x7F800000), "BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00)}


def check_finite(folder: Path, names: Iterable[str], beat: Callable[[], None] = lambda: None) -> None:
    """Raise CheckpointError naming the first tensor of the model in `folder` that holds a NaN or an infinity."""
    for name in names:
        if name.startswith("model") and name.endswith(".safetensors") and (tensor := _strange(folder / name, beat)):
            raise CheckpointError(
                f"{folder.name}: {tensor} holds a NaN or an infinity; such weights are never promoted"
            )


def _strange(path: Path, beat: Callable[[], None]) -> str | None:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 8 + int.from_bytes(data[:8], "little")
        try:
            header = orjson.loads(data[8:start])
        except orjson.JSONDecodeError:
            raise CheckpointError(f"{path.parent.name}: {path.name} is no safetensors file") from None
        for tensor, entry in header.items():
            if tensor != "__metadata__" and entry["dtype"] in EXPONENTS:
                first, last = (start + offset for offset in entry["data_offsets"])
                for piece in range(first, last, PIECE_BYTES):
                    beat()
                    if _holds_none_number(data[piece : min(piece + PIECE_BYTES, last)], *EXPONENTS[entry["dtype"]]):
                        return tensor
    return None


def _holds_none_number(data: bytes, kind: type, exponent: int) -> bool:
    """All bits of the exponent set: a NaN or an infinity in every format of IEEE 754."""
    return bool(np.any(np.frombuffer(data, kind) & kind(exponent) == exponent))
