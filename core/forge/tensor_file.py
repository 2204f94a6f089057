"""Tensors in host memory, laid out as the safetensors file they become. It knows nothing about models or checkpoints.

Copying tensors into the layout is all that a trainer waits for. The file is this memory, byte for byte the one that
safetensors writes, so that writing it needs neither tensors nor the interpreter's lock, which safetensors never releases.
"""

import mmap
import weakref
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path

import orjson
import torch

from core.direct_file import padded, write_compared

_NAMES = {  # from the widest to the narrowest, as safetensors orders them
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class TensorFile:
    """Memory for tensors like `tensors`, touched once and then used again and again; pinned where there is a GPU."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None):
        header, places = _layout(tensors, metadata)
        self.length = len(header) + sum(tensor.nbytes for tensor in tensors.values())
        self._memory = mmap.mmap(-1, padded(self.length), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory[: len(header)] = header
        whole = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._copies = {
            name: whole[first : first + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for name, tensor in tensors.items()
            for first in (len(header) + places[name],)
        }
        if torch.cuda.is_available():
            _pin(self, whole)

    def fits(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether `fill` takes `tensors`: the same names, types and shapes."""
        return tensors.keys() == self._copies.keys() and all(
            (tensor.dtype, tensor.shape) == (self._copies[name].dtype, self._copies[name].shape)
            for name, tensor in tensors.items()
        )

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy `tensors` here; from a GPU the copies are only queued, behind what it has to do already."""
        copies = [self._copies[name] for name in tensors]
        torch._foreach_copy_(copies, list(tensors.values()), non_blocking=True)

    def not_finite(self) -> str | None:
        """The name of a tensor that holds what is no number, if one does."""
        return not_finite(self._copies)

    def write(self, path: Path) -> str:
        """Write the file, read it back, and return its SHA-256. Raises OSError."""
        return write_compared(path, self._memory, self.length)


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The first of `tensors` that holds an infinity or what is no number; it is read once, and nothing is allocated."""
    floating = ((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel())
    return next((name for name, tensor in floating if not _is_finite(tensor)), None)


def _is_finite(tensor: torch.Tensor) -> bool:
    least, most = torch.aminmax(tensor)
    return bool(least.isfinite() & most.isfinite())


def _layout(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> tuple[bytes, dict[str, int]]:
    """The file's beginning, and where behind it each tensor has its place."""
    order = list(_NAMES)
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    places, end = {}, 0
    for name in sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name)):
        tensor = tensors[name]
        places[name], end = end, end + prod(tensor.shape) * tensor.itemsize
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [places[name], end],
        }
    text = orjson.dumps(entries)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places


def _pin(owner: object, memory: torch.Tensor) -> None:
    """Lock the pages, so that a GPU copies into them at full speed; a refusal only costs that speed."""
    runtime = torch.cuda.cudart()
    if int(runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)) == 0:
        weakref.finalize(owner, runtime.cudaHostUnregister, memory.data_ptr()).atexit = False
    else:
        with suppress(RuntimeError):  # CUDA tells a refusal again at the next launch; let it be this one
            torch.zeros(1, device="cuda")
