"""A copy of all that a checkpoint holds of model and optimizer, taken between two steps and written while training goes on.

The memory for it is allocated once: touching fresh pages costs five times what copying does. It knows nothing about
manifests, quests, or who writes it.
"""

from collections.abc import Mapping
from pathlib import Path

import orjson
import torch
from huggingface_hub import split_torch_state_dict_into_shards

from core.errors import NotFinite
from core.forge.state import MAX_SHARD, OPTIMIZER, STATE, Carried, copy_tokenizer, take_state
from core.forge.step_guard import StepGuard
from core.forge.tensor_file import TensorFile

_WEIGHTS, _INDEX = "model{suffix}.safetensors", "model.safetensors.index.json"
_JSON = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


class Snapshot:
    """Weights, optimizer and random streams as of the last `take`; the files are those of `save_model` and `save_state`."""

    def __init__(self) -> None:
        self._files: dict[str, TensorFile] = {}
        self._texts: dict[str, bytes] = {}
        self._copied: torch.cuda.Event | None = None

    def take(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        texts: Mapping[str, bytes] | None = None,
        guard: StepGuard | None = None,
        rolled: Carried | None = None,
    ) -> None:
        """Copy. Nobody may be in `write` meanwhile. `texts`: further files by name."""
        weights = _weights(model)
        state, skeleton = take_state(optimizer, guard, rolled)
        shards = split_torch_state_dict_into_shards(weights, filename_pattern=_WEIGHTS, max_shard_size=MAX_SHARD)
        tensors = {
            name: {each: weights[each] for each in inside} for name, inside in shards.filename_to_tensors.items()
        } | {OPTIMIZER: state}
        self._fit(tensors)
        for name, inside in tensors.items():
            self._files[name].fill(inside)
        self._texts = {**_descriptions(model), **(texts or {}), STATE: skeleton}
        if shards.is_sharded:
            facts = {"total_parameters": model.num_parameters(), **shards.metadata}
            index = {"metadata": facts, "weight_map": shards.tensor_to_filename}
            self._texts[_INDEX] = orjson.dumps(index, option=_JSON)
        if torch.cuda.is_available():
            self._copied = torch.cuda.Event()
            self._copied.record()

    @property
    def bytes(self) -> int:
        """How large its tensors' files are."""
        return sum(file.length for file in self._files.values())

    def _fit(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Have memory for `tensors`; what does not fit them goes before anything new is allocated."""
        self._files = {name: file for name, file in self._files.items() if name in tensors and file.fits(tensors[name])}
        for name in tensors.keys() - self._files.keys():
            self._files[name] = TensorFile(tensors[name], None if name == OPTIMIZER else {"format": "pt"})

    def write(self, folder: Path, tokenizer: Path) -> dict[str, str]:
        """The checkpoint's files, and the SHA-256 of the large ones, which were read back from the disk and compared.

        Raises NotFinite, with nothing written, where a tensor holds what is no number.
        """
        if self._copied is not None:
            self._copied.synchronize()
        for file in self._files.values():
            if name := file.not_finite():
                raise NotFinite(f"{name} holds a number that is not finite")
        copy_tokenizer(tokenizer, folder)
        for name, text in self._texts.items():
            (folder / name).write_bytes(text)
        return {name: file.write(folder / name) for name, file in self._files.items()}


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's tensors, those that are tied under their first name only."""
    seen: set[int] = set()
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not (tensor.data_ptr() in seen or seen.add(tensor.data_ptr()))
    }


def _descriptions(model: torch.nn.Module) -> dict[str, bytes]:
    """The model's config files, as `save_pretrained` writes them."""
    config = model.config
    config.use_cache = True
    config.dtype = str(model.dtype).removeprefix("torch.")
    config.architectures = [type(model).__name__]
    generation = model.generation_config.to_json_string(use_diff=True, keys_to_pop=["compile_config"])
    return {"config.json": config.to_json_string(use_diff=True).encode(), "generation_config.json": generation.encode()}
