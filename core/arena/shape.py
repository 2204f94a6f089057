"""The shape of an agent, a Qwen3 of any size: its checks, its parameters, its config. It knows no torch and no agent by name."""

from dataclasses import dataclass
from typing import Any

from core.errors import UserError

MOST = {"n_embd": 1024, "n_layer": 48, "n_head": 64}
MOST_PARAMETERS = 50_000_000
ROPE_THETA, EPSILON = 10_000.0, 1e-6


@dataclass(frozen=True)
class Shape:
    """Width, layers and heads. Raises UserError for what is no shape, with the nearest remedy."""

    n_embd: int
    n_layer: int
    n_head: int

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise UserError(f"{name} = {value}: must be a whole number from 1 to {most}")
        if self.n_embd % self.n_head:
            lower, upper = self.n_embd // self.n_head * self.n_head, (self.n_embd // self.n_head + 1) * self.n_head
            near = " or ".join(str(width) for width in (lower, upper) if width)
            raise UserError(
                f"n_embd = {self.n_embd} cannot be shared out over n_head = {self.n_head} heads: n_head must divide "
                f"n_embd; take n_embd = {near}"
            )
        if (count := self.parameters(0)) > MOST_PARAMETERS:
            raise UserError(
                f"{self.n_embd} x {self.n_layer} would have {count:,} parameters; the arena takes {MOST_PARAMETERS:,} at "
                "most: take a smaller n_embd or fewer layers"
            )

    @property
    def head_dim(self) -> int:
        """Width of a head: n_embd / n_head, made even where it is odd, for rotary positions turn pairs."""
        width = self.n_embd // self.n_head
        return width + width % 2

    @property
    def intermediate(self) -> int:
        """Width of the gated MLP: 8/3 of n_embd, which makes it as large as a plain MLP of four times (Shazeer,
        arXiv 2002.05202, section 3), rounded up to a multiple of 8."""
        return -(-8 * self.n_embd // 3 // 8) * 8 or 8

    @property
    def layer_matrices(self) -> int:
        """Weights of a layer that are multiplied with every token."""
        return 4 * self.n_embd * self.n_head * self.head_dim + 3 * self.n_embd * self.intermediate

    def parameters(self, vocabulary: int) -> int:
        """All weights with so many tokens; the head is the embedding."""
        norms = self.n_layer * (2 * self.n_embd + 2 * self.head_dim) + self.n_embd
        return self.n_layer * self.layer_matrices + norms + vocabulary * self.n_embd

    def config(self, vocabulary: int) -> dict[str, Any]:
        """What transformers calls this model, as the values of a Qwen3Config."""
        return {
            "vocab_size": vocabulary,
            "hidden_size": self.n_embd,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.n_layer,
            "num_attention_heads": self.n_head,
            "num_key_value_heads": self.n_head,
            "head_dim": self.head_dim,
            "max_position_embeddings": 4096,
            "rope_theta": ROPE_THETA,
            "rms_norm_eps": EPSILON,
            "tie_word_embeddings": True,
        }
