"""An agent's model: a Qwen3 of whole batches, under the names that transformers gives its weights. It knows no optimizer.

It computes what Qwen3ForCausalLM does with the forge's stretches of Qwen3, without transformers, whose import alone would
take longer than a small agent's training. All weights lie in one piece of memory, so the optimizer has one tensor to move.
Legend: B samples, T positions, N = B·T, D width, H heads, W head width, V tokens of the vocabulary, S positions seen.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from core.arena.shape import EPSILON, ROPE_THETA, Shape
from core.forge.qwen3 import after_attention, before_attention, norm

EMBEDDING_STD = 0.02
Look = Callable[[int, dict[str, torch.Tensor]], None]


class Layer(nn.Module):
    """The weights of one layer."""

    def __init__(self, shape: Shape):
        super().__init__()
        width, heads = shape.n_embd, shape.n_head * shape.head_dim

        def matrix(rows: int, columns: int) -> nn.Linear:
            return nn.Linear(columns, rows, bias=False, device="meta")

        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name in ("q_proj", "k_proj", "v_proj"):
            self.self_attn.add_module(name, matrix(heads, width))
        self.self_attn.o_proj = matrix(width, heads)
        self.self_attn.q_norm, self.self_attn.k_norm = (_gain(shape.head_dim) for _ in range(2))
        self.mlp.gate_proj, self.mlp.up_proj = (matrix(shape.intermediate, width) for _ in range(2))
        self.mlp.down_proj = matrix(width, shape.intermediate)
        self.input_layernorm, self.post_attention_layernorm = _gain(width), _gain(width)


class MicroModel(nn.Module):
    """`forward` gives logits; `step` those behind one more token of each sample, with a cache."""

    def __init__(self, shape: Shape, vocabulary: int, seed: int, device: str = "cpu"):
        super().__init__()
        self.shape = shape
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(vocabulary, shape.n_embd, device="meta")
        self.model.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layer))
        self.model.norm = _gain(shape.n_embd)
        self.flat = self._lay_out(seed, device)
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None
        self._layers = [_weights(layer) for layer in self.model.layers]

    def _lay_out(self, seed: int, device: str) -> list[nn.Parameter]:
        """Matrices and gains, each kind in one tensor of which the named weights and their gradients are pieces; `gradient` is all
        of both.

        Matrices begin normally distributed with the deviation of their inputs' count to the power of -1/2, those that add to
        the residual stream divided by the root of their number, so that its size does not depend on the depth."""
        kinds: tuple[list, list] = ([], [])
        for name, weight in self.named_parameters():
            kinds[weight.ndim == 1].append((name, weight.shape))
        sizes = [sum(shape.numel() for _, shape in shapes) for shapes in kinds]
        weights = torch.ones(sum(sizes), device=device)
        self.gradient = torch.zeros_like(weights)
        draw, flat = torch.Generator().manual_seed(seed), []
        for shapes, whole, gradient in zip(kinds, weights.split(sizes), self.gradient.split(sizes), strict=True):
            flat.append(nn.Parameter(whole))
            flat[-1].grad = gradient
            lengths = [shape.numel() for _, shape in shapes]
            for (name, shape), piece, slope in zip(shapes, whole.split(lengths), gradient.split(lengths), strict=True):
                owner, _, key = name.rpartition(".")
                weight = nn.Parameter(piece.view(shape))
                weight.grad = slope.view(shape)
                setattr(self.get_submodule(owner), key, weight)
                if len(shape) > 1:
                    weight.data.copy_(torch.randn(shape, generator=draw) * self._deviation(name, shape))
        return flat

    def _deviation(self, name: str, shape: torch.Size) -> float:
        if "embed" in name:
            return EMBEDDING_STD
        adds = name.endswith(("o_proj.weight", "down_proj.weight"))
        return shape[1] ** -0.5 * ((2 * self.shape.n_layer) ** -0.5 if adds else 1.0)

    def forward(self, tokens_BT: torch.Tensor, look: Look | None = None) -> torch.Tensor:
        """Logits (N, V). What pads stands behind a sample's end, where nothing that counts sees it. `look` is shown each
        layer's queries, keys and activations."""
        samples, positions = tokens_BT.shape
        x_ND = F.embedding(tokens_BT.reshape(-1), self.model.embed_tokens.weight)
        angles = [part.repeat(samples, 1, 1) for part in self._turns(positions)]
        for number, weights in enumerate(self._layers):
            three = before_attention(x_ND, *weights[:6], *angles, EPSILON)
            query, key, value = (part.unflatten(0, (samples, positions)).transpose(1, 2) for part in three)
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            seen_ND = seen.transpose(1, 2).reshape(samples * positions, -1)
            if look is not None:
                look(number, {"query": query, "key": key, "x": x_ND, "seen": seen_ND})
            x_ND = after_attention(x_ND, seen_ND, *weights[6:], EPSILON)
        return F.linear(norm(x_ND, self.model.norm.weight, EPSILON), self.model.embed_tokens.weight)

    def step(self, tokens_B: torch.Tensor, seen: int, cache: list[torch.Tensor]) -> torch.Tensor:
        """Logits (B, V) behind `tokens_B`, the token at the place `seen` of each sample. `cache`: of each layer keys and
        values (2, B, H, S, W), which grow by one place."""
        x_BD = F.embedding(tokens_B, self.model.embed_tokens.weight)
        angles = [part[seen:] for part in self._turns(seen + 1)]
        for number, weights in enumerate(self._layers):
            query_BHW, key_BHW, value_BHW = before_attention(x_BD, *weights[:6], *angles, EPSILON)
            added = torch.stack([key_BHW, value_BHW])[:, :, :, None]
            cache[number] = added if seen == 0 else torch.cat([cache[number], added], 3)
            seen_BHW = F.scaled_dot_product_attention(query_BHW[:, :, None], *cache[number])[:, :, 0]
            x_BD = after_attention(x_BD, seen_BHW.flatten(1), *weights[6:], EPSILON)
        return F.linear(norm(x_BD, self.model.norm.weight, EPSILON), self.model.embed_tokens.weight)

    def _turns(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of the rotary positions (T, 1, W), the second half of W as the first."""
        if self._angles is None or len(self._angles[0]) < positions:
            width = self.shape.head_dim
            speeds = ROPE_THETA ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
            angles_TW = (torch.arange(max(positions, 64))[:, None] * speeds).repeat(1, 2)
            device = self.flat[0].device
            self._angles = angles_TW.cos()[:, None].to(device), angles_TW.sin()[:, None].to(device)
        return tuple(part[:positions] for part in self._angles)


def _gain(width: int) -> nn.Module:
    """The weight of a norm, under the name that it has in transformers."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.empty(width, device="meta"))
    return module


def _weights(layer: Layer) -> tuple[torch.Tensor, ...]:
    """What `before_attention` takes of a layer, and behind it what `after_attention` does."""
    attention, mlp = layer.self_attn, layer.mlp
    return (
        layer.input_layernorm.weight, attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight,
        attention.q_norm.weight, attention.k_norm.weight, attention.o_proj.weight, layer.post_attention_layernorm.weight,
        mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight,
    )  # fmt: skip


def layer_of(name: str) -> str:
    """The place of a weight in words a player reads: `layer 2 attention`, `layer 2 mlp`, `embedding`, `norm`."""
    parts = name.split(".")
    if parts[1] == "layers":
        kind = "attention" if parts[3] in ("self_attn", "input_layernorm") else "mlp"
        return f"layer {int(parts[2]) + 1} {kind}"
    return "embedding" if "embed" in parts[1] else "final norm"


def by_layer(model: MicroModel) -> Iterator[tuple[str, list[nn.Parameter]]]:
    """The weights of each place of `layer_of`, in the order of the forward pass."""
    places: dict[str, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if name.startswith("model."):
            places.setdefault(layer_of(name), []).append(weight)
    yield from places.items()
