"""How much arithmetic training needs, and how much a GPU can do at best: the two numbers behind MFU. No torch, no clock.

MFU, model FLOPs utilisation: the operations a step needs over those the device could have done in the time it took.
What is computed twice to save memory does not count as needed (Chowdhery et al., "PaLM", 2022, appendix B).
"""

import re
from collections.abc import Iterable
from typing import Any

PEAKS = {  # dense bf16 with fp32 accumulation, TFLOP/s, as their makers' data sheets give it; other names are unknown
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H800": 989.0,
    "A100": 312.0,
    "A800": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 6000 Ada": 364.2,
    "RTX A6000": 154.8,
    "RTX 5090": 209.5,
    "RTX 5080": 112.6,
    "RTX 4090": 165.2,
    "RTX 4090 D": 147.1,
    "RTX 4080": 97.5,
    "RTX 3090": 71.0,
    "RTX 3090 Ti": 80.0,
    "RTX 3080": 59.5,
}
_OTHER_CHIPS = re.compile(r"\b(laptop|mobile|max-q|mig|ti|super|d)\b", re.IGNORECASE)


def training_flops(shape: dict[str, Any], lengths: Iterable[int], labels: int) -> float:
    """Floating-point operations that training on sequences of these lengths needs at least, forward and backward.

    `shape`: a model's config. Weights: 2 a token forward, 4 backward, the head at label positions only; attention:
    causal, so half of the square.
    """
    lengths = list(lengths)
    hidden, head = shape["hidden_size"], shape["head_dim"]
    heads = shape["num_attention_heads"]
    attention = hidden * head * 2 * (heads + shape["num_key_value_heads"])
    body = shape["num_hidden_layers"] * (attention + 3 * hidden * shape["intermediate_size"])
    squares = sum(length * (length + 1) / 2 for length in lengths)
    return (
        6 * body * sum(lengths)
        + 6 * hidden * shape["vocab_size"] * labels
        + 12 * shape["num_hidden_layers"] * heads * head * squares
    )


def peak_flops(device: str) -> float | None:
    """Dense bf16 operations a second of the GPU with this name, None where they are not known.

    A laptop's chip, or a slice of a GPU, bears its big sister's name and is not as fast: those are unknown, too.
    """
    found = [name for name in PEAKS if re.search(rf"\b{name}\b", device, re.IGNORECASE)]
    name = max(found, key=len, default=None)
    if name is None or _OTHER_CHIPS.search(re.sub(rf"\b{name}\b", "", device, flags=re.IGNORECASE)):
        return None
    return PEAKS[name] * 1e12
