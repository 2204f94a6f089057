"""The fastest honest loop that plain PyTorch allows: the yardstick for what a trainer costs on top of its mathematics.

No trainer, no modules: Qwen3's forward pass in functions, projections of one input joined, rows in bins without
padding, attention inside each row only, the head at label positions only, AdamW fused. Nothing else is done: no
reports, no checks, no checkpoints. Legend: T tokens of a bin, D width, H heads, K key heads, W head width, N labels.
"""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import Task
from training.bench.material import OPTIMIZER

BIN_TOKENS = 4096 if torch.cuda.is_available() else 1024  # on a CPU what fits its caches is fastest
JOINED = {"qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "up": ("mlp.gate_proj", "mlp.up_proj")}
ALONE = (
    "input_layernorm",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.down_proj",
)


@dataclass(frozen=True)
class Bin:
    tokens_T: torch.Tensor
    places_T: torch.Tensor
    lengths: tuple[int, ...]
    at_N: torch.Tensor
    labels_N: torch.Tensor


def run(task: Task, stopwatch: Stopwatch) -> torch.nn.Module:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stock = AutoModelForCausalLM.from_pretrained(task.material.weights, dtype=torch.float32)
    net = Net(stock, device)
    betas = OPTIMIZER["adam_beta1"], OPTIMIZER["adam_beta2"]
    optimizer = torch.optim.AdamW(
        net.weights(),
        task.material.size.learning_rate,
        betas,
        OPTIMIZER["adam_epsilon"],
        OPTIMIZER["weight_decay"],
        fused=True,
    )
    autocast = torch.autocast(device.type, torch.bfloat16) if task.precision == "bf16" else contextlib.nullcontext()
    stopwatch.begin()
    for step in range(task.steps):
        bins = [
            Bin(*(part.to(device) if torch.is_tensor(part) else part for part in parts))
            for parts in binned(task.sequences(step))
        ]
        labels = sum(len(each.labels_N) for each in bins)
        for each in bins:
            with autocast:
                loss = net.loss_sum(each) / labels
            loss.backward()
        torch.nn.utils.clip_grad_norm_(net.weights(), OPTIMIZER["max_grad_norm"], foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        stopwatch.step(sum(len(each.tokens_T) for each in bins))
    net.give_back(stock)
    return stock


def binned(rows: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple]:
    """The parts of each Bin: longest rows first, each into the first bin that has room."""
    bins: list[list] = []
    for row in sorted(rows, key=lambda row: -len(row[0])):
        fits = (held for held in bins if sum(len(tokens) for tokens, _ in held) + len(row[0]) <= BIN_TOKENS)
        target = next(fits, None)
        if target is None:
            bins.append([row])
        else:
            target.append(row)
    return [_parts(held) for held in bins]


def _parts(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple:
    tokens_T = torch.from_numpy(np.concatenate([tokens for tokens, _ in rows]).astype(np.int64))
    trained_T = torch.from_numpy(np.concatenate([np.append(False, trained[1:]) for _, trained in rows]))
    lengths = tuple(len(tokens) for tokens, _ in rows)
    targets_N = trained_T.nonzero().flatten()
    return (
        tokens_T,
        torch.cat([torch.arange(length) for length in lengths]),
        lengths,
        targets_N - 1,
        tokens_T[targets_N],
    )


class Net:
    """Qwen3's weights, some of them joined, and its forward pass."""

    def __init__(self, stock: Qwen3ForCausalLM, device: torch.device):
        self.config = config = stock.config
        self.eps, self.heads, self.kv_heads, self.width = (
            config.rms_norm_eps,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.embedding, self.norm = (
            _leaf(module.weight, device) for module in (stock.model.embed_tokens, stock.model.norm)
        )
        self.layers = []
        for layer in stock.model.layers:
            parts = {name: [layer.get_submodule(path).weight for path in paths] for name, paths in JOINED.items()}
            parts |= {path.rpartition(".")[2]: [layer.get_submodule(path).weight] for path in ALONE}
            self.layers.append({name: _leaf(torch.cat(weights), device) for name, weights in parts.items()})
        turns = config.rope_parameters["rope_theta"] ** (-torch.arange(0, self.width, 2, device=device) / self.width)
        angles = torch.arange(config.max_position_embeddings, device=device)[:, None] * turns
        self.cos, self.sin = angles.cos().repeat(1, 2), torch.cat([-angles.sin(), angles.sin()], 1)

    def weights(self) -> list[torch.Tensor]:
        return [self.embedding, self.norm, *(weight for layer in self.layers for weight in layer.values())]

    def loss_sum(self, each: Bin) -> torch.Tensor:
        x_TD = F.embedding(each.tokens_T, self.embedding)
        turns = self.cos[each.places_T, None], self.sin[each.places_T, None]
        for layer in self.layers:
            x_TD = x_TD + self._attend(self._normed(x_TD, layer["input_layernorm"]), turns, each.lengths, layer)
            gate_TI, up_TI = F.linear(self._normed(x_TD, layer["post_attention_layernorm"]), layer["up"]).chunk(2, -1)
            x_TD = x_TD + F.linear(F.silu(gate_TI) * up_TI, layer["down_proj"])
        logits_NV = F.linear(self._normed(x_TD[each.at_N], self.norm), self.embedding)
        return F.cross_entropy(logits_NV.float(), each.labels_N, reduction="sum")

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)

    def _attend(self, x_TD: torch.Tensor, turns: tuple, lengths: tuple[int, ...], layer: dict) -> torch.Tensor:
        heads = (self.heads, self.kv_heads, self.kv_heads)
        q_THW, k_TKW, v_TKW = F.linear(x_TD, layer["qkv"]).view(len(x_TD), -1, self.width).split(heads, 1)
        q_THW, k_TKW = (
            self._turned(self._normed(each, layer[norm]), *turns)
            for each, norm in ((q_THW, "q_norm"), (k_TKW, "k_norm"))
        )
        rows = zip(*(each.transpose(0, 1)[None].split(lengths, 2) for each in (q_THW, k_TKW, v_TKW)), strict=True)
        attended = [
            F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
            for q, k, v in rows
        ]
        return F.linear(torch.cat(attended, 2)[0].transpose(0, 1).flatten(1), layer["o_proj"])

    def _turned(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return x * cos + x.roll(self.width // 2, -1) * sin

    @torch.no_grad()
    def give_back(self, stock: Qwen3ForCausalLM) -> None:
        """Put the trained weights into the stock model."""
        stock.model.embed_tokens.weight.copy_(self.embedding)
        stock.model.norm.weight.copy_(self.norm)
        for layer, trained in zip(stock.model.layers, self.layers, strict=True):
            for name, paths in [*JOINED.items(), *((path.rpartition(".")[2], (path,)) for path in ALONE)]:
                targets = [layer.get_submodule(path).weight for path in paths]
                for target, part in zip(targets, trained[name].split([len(target) for target in targets]), strict=True):
                    target.copy_(part)


def _leaf(weight: torch.Tensor, device: torch.device) -> torch.Tensor:
    return weight.detach().to(device).clone().requires_grad_()
