"""Who takes part in `bench forge`, on which models, and what each needs installed. Knows neither torch nor clock."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """One way to train. `options` go to its entrant; `equal`: the case's precision and no gradient checkpointing."""

    name: str
    title: str
    entrant: str
    needs: tuple[str, ...] = ()
    equal: bool = True
    options: dict[str, Any] = field(default_factory=dict)


_TRL = ("trl", "datasets")
CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("ours", "The forge", "ours"),
        Contestant("ours_compiled", "The forge, compiled", "ours", options={"compiled": True}),
        Contestant("bare", "Bare loop, same kernels", "bare"),
        Contestant("hf_padded", "HF Trainer, padded", "hugging_face"),
        Contestant("hf_grouped", "HF Trainer, by length", "hugging_face", options={"sampling": "group_by_length"}),
        Contestant("hf_one_row", "HF Trainer, one row a pass", "hugging_face", options={"micro": 1}),
        Contestant("trl_default", "TRL SFT", "trl_sft", _TRL),
        Contestant("trl_packing", "TRL SFT, packing", "trl_sft", _TRL, options={"packing": True}),
        Contestant(
            "trl_packing_one", "TRL SFT, one pack a pass", "trl_sft", _TRL, options={"packing": True, "alone": True}
        ),
        Contestant("trl_padding_free", "TRL SFT, padding-free", "trl_sft", _TRL, options={"padding_free": True}),
        Contestant("trl_as_it_comes", "TRL SFT as it comes", "trl_sft", _TRL, equal=False),
        Contestant(
            "trl_packing_as_it_comes",
            "TRL packing as it comes",
            "trl_sft",
            _TRL,
            equal=False,
            options={"packing": True},
        ),
    )
}
# The peers of `ratio`. The others are told beside them: what a patient user gets out of a peer, and peers as they come.
PEERS = ("trl_default", "trl_packing", "trl_padding_free", "hf_padded", "hf_grouped", "bare")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Size:
    """A Qwen3 shape, and how much of it is measured: `rows` an optimizer step, `micro` rows a pass of padded peers."""

    name: str
    shape: dict[str, Any]
    learning_rate: float
    rows: int = 24
    micro: int = 8
    steps: int = 10
    quick_steps: int = 5
    longest: int = 1006
    held_out: int = 32


def _shape(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, head: int, vocabulary: int
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
    }


SIZES = {
    each.name: each
    for each in (
        Size("mini", _shape(64, 192, 2, 2, 1, 32, 4096), 1e-3, 6, 2, 4, 4, longest=120, held_out=8),
        Size("4m", _shape(256, 768, 4, 4, 2, 64, 4096), 1e-3),
        Size("30m", _shape(512, 1536, 8, 8, 4, 64, 4096), 1e-3, steps=8, quick_steps=4),
        Size("0.6b", _shape(1024, 3072, 28, 16, 8, 128, 151_936), 1e-5, steps=20, quick_steps=6),
    )
}
