"""Qwen3 reading and continuing one sequence with a key-value cache, from safetensors alone: without transformers, whose
import would take most of the time until the first word. It knows no tokenizer and draws nothing.

Legend: T tokens that are read now, S those in the cache, D hidden width, H heads, K key heads, W head width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from core.errors import UserError
from core.forge.qwen3 import after_attention, before_attention, norm
from core.model_folder import config_values

FIRST_ROOM = 512  # tokens that a cache has room for at first; it doubles


@dataclass(frozen=True)
class Layer:
    """The weights of one layer, in the order in which they are used."""

    before_D: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    query_norm_W: torch.Tensor
    key_norm_W: torch.Tensor
    output: torch.Tensor
    after_D: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


_NAMES = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_norm", "self_attn.k_norm",
    "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class Cache:
    """Keys and values of the tokens read so far, layer by layer; at most `most`."""

    def __init__(self, layers: int, most: int):
        self.length, self._most = 0, most
        self._kept: list[torch.Tensor | None] = [None] * layers

    def add(self, layer: int, key_TKW: torch.Tensor, value_TKW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of a layer, (K, S, W) each, the new ones at their end."""
        end, kept = self.length + len(key_TKW), self._kept[layer]
        if kept is None or kept.shape[2] < end:
            room = max(end, min(self._most, max(FIRST_ROOM, 2 * self.length)))
            grown = key_TKW.new_empty(2, key_TKW.shape[1], room, key_TKW.shape[2])
            if kept is not None:
                grown[:, :, : self.length] = kept[:, :, : self.length]
            self._kept[layer] = kept = grown
        kept[0, :, self.length : end] = key_TKW.transpose(0, 1)
        kept[1, :, self.length : end] = value_TKW.transpose(0, 1)
        return kept[0, :, :end], kept[1, :, :end]


class Decoder:
    """The model in `folder`. Raises UserError where it is no plain Qwen3."""

    def __init__(self, folder: Path, device: str):
        values = config_values(folder)
        if strange := strange_feature(values):
            raise UserError(f"The Oracle does not answer with a model that has {strange}.")
        tensors: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            tensors |= load_file(file, device)
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        kind = tensors["embed_tokens.weight"].dtype
        tensors = {name: tensor.to(kind) for name, tensor in tensors.items()}
        self.embedding_VD, self.norm_D = tensors["embed_tokens.weight"], tensors["norm.weight"]
        tied = values.get("tie_word_embeddings", False)
        self.head_VD = self.embedding_VD if tied else tensors["lm_head.weight"]
        self.layers = [
            Layer(*(tensors[f"layers.{number}.{name}.weight"] for name in _NAMES))
            for number in range(values["num_hidden_layers"])
        ]
        self.positions: int = values.get("max_position_embeddings", 32768)
        self._epsilon, width = values.get("rms_norm_eps", 1e-6), values["head_dim"]
        self._turns_w = rope_theta(values) ** -(torch.arange(0, width, 2, device=device).float() / width)

    @property
    def vocabulary(self) -> int:
        return len(self.head_VD)

    def cache(self, most: int) -> Cache:
        return Cache(len(self.layers), most)

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], cache: Cache) -> torch.Tensor:
        """The logits (V) of what comes after `tokens`, which follow those in the cache and are kept there."""
        device, begin, end = self.embedding_VD.device, cache.length, cache.length + len(tokens)
        x_TD = F.embedding(torch.tensor(tokens, device=device), self.embedding_VD)
        turns_Tw = torch.arange(begin, end, device=device).float()[:, None] * self._turns_w
        turns_T1W = torch.cat([turns_Tw, turns_Tw], -1)[:, None]
        angles = turns_T1W.cos().to(x_TD.dtype), turns_T1W.sin().to(x_TD.dtype)
        seen_TS = None if len(tokens) == 1 else _seen(begin, end, device)
        for number, layer in enumerate(self.layers):
            query_THW, key_TKW, value_TKW = before_attention(
                x_TD, layer.before_D, layer.query, layer.key, layer.value, layer.query_norm_W, layer.key_norm_W, *angles,
                self._epsilon,
            )  # fmt: skip
            three = (query_THW.transpose(0, 1), *cache.add(number, key_TKW, value_TKW))
            found_HTW = F.scaled_dot_product_attention(
                *(tensor[None] for tensor in three),
                attn_mask=seen_TS,
                enable_gqa=three[0].shape[0] != three[1].shape[0],
            )[0]
            x_TD = after_attention(
                x_TD, found_HTW.transpose(0, 1).flatten(1), layer.output, layer.after_D, layer.gate, layer.up, layer.down,
                self._epsilon,
            )  # fmt: skip
        cache.length = end
        return F.linear(norm(x_TD[-1], self.norm_D, self._epsilon), self.head_VD).float()


def _seen(begin: int, end: int, device: torch.device) -> torch.Tensor:
    """(T, S): each new token sees those before it, and itself."""
    return torch.ones(end - begin, end, dtype=torch.bool, device=device).tril(begin)


def rope_theta(values: dict[str, Any]) -> float:
    told = values.get("rope_parameters") or {}
    return float(told.get("rope_theta") or values.get("rope_theta") or 10_000.0)


def strange_feature(values: dict[str, Any]) -> str | None:
    """What in a checked config.json would change the numbers and is not computed here; None for a plain Qwen3."""
    rope = (values.get("rope_parameters") or {}) | (values.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        return f"rotary embeddings of the type {str(kind)[:40]!r}"
    if values.get("use_sliding_window") or set(values.get("layer_types") or ()) - {"full_attention"}:
        return "sliding windows"
    if values.get("attention_bias"):
        return "biases in its attention"
    if values.get("hidden_act", "silu") != "silu":
        return f"the activation {values['hidden_act']!r}"
    return None
