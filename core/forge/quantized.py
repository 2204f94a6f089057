"""Numbers in fewer bits: bf16 rounded by chance or with an exact remainder, moments in 8 bits, random bits by counter.

Pure functions of tensors; they know no optimizer. Legend: N numbers, B blocks of `BLOCK` numbers.
"""

import hashlib
import struct

import torch
from torch.nn import functional as F

BLOCK = 256
Whole = int | torch.Tensor  # an int32, or a tensor of one
_FIRST_TOP, _SECOND_TOP = 127, 255  # highest codes of a signed and of an unsigned block


# Random bits


def stream_keys(*name: int) -> tuple[int, int]:
    """Two 32-bit keys of the random stream that belongs to `name`."""
    return struct.unpack("<ii", hashlib.blake2b(repr(name).encode(), digest_size=8).digest())


def random_bits(count: int, start: Whole, key: Whole, second_key: Whole, device: torch.device) -> torch.Tensor:
    """32 random bits for each of the counters `start`, `start` + 1, …: nothing but counters and keys decides them.

    The mixing is MurmurHash3's 32-bit finaliser (Appleby, 2011), a second key going in half-way.
    """
    bits_N = mix((torch.arange(count, dtype=torch.int32, device=device) + start) ^ key)
    return mix(bits_N ^ second_key)


def mix(bits_N: torch.Tensor) -> torch.Tensor:
    """A bijection of 32-bit integers that spreads every bit over all others."""
    bits_N = (bits_N ^ _down(bits_N, 16)) * (0x85EBCA6B - (1 << 32))
    bits_N = (bits_N ^ _down(bits_N, 13)) * (0xC2B2AE35 - (1 << 32))
    return bits_N ^ _down(bits_N, 16)


def _down(bits_N: torch.Tensor, places: int) -> torch.Tensor:
    """A shift to the right that brings zeros, where int32's own brings the sign."""
    return (bits_N >> places) & ((1 << (32 - places)) - 1)


def low_half(bits_N: torch.Tensor) -> torch.Tensor:
    return bits_N & 0xFFFF


def high_half(bits_N: torch.Tensor) -> torch.Tensor:
    return _down(bits_N, 16)


# bf16: the upper sixteen bits of a float32


def round_stochastically(exact_N: torch.Tensor, bits_N: torch.Tensor) -> torch.Tensor:
    """float32 to one of its two neighbours in bf16, so that the mean over `bits_N` (16 random bits each) is `exact_N`.

    (Gupta et al., "Deep learning with limited numerical precision", arXiv 1502.02551, section 3.1.)
    """
    raised_N = exact_N.view(torch.int32) + bits_N
    return (raised_N & -0x10000).view(torch.float32).to(torch.bfloat16)


def split(exact_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 as the nearest bf16 and the int16 that is left of its bits; nothing is lost.

    (Kalamkar et al., "Optimizing deep learning recommender systems' training on CPU cluster architectures", arXiv
    2005.04680, Split-SGD; here the upper half is rounded, not cut.)
    """
    whole_N = exact_N.view(torch.int32)
    upper_N = (whole_N + 0x8000) >> 16
    return upper_N.to(torch.int16).view(torch.bfloat16), (whole_N - (upper_N << 16)).to(torch.int16)


def join(upper_N: torch.Tensor, rest_N: torch.Tensor) -> torch.Tensor:
    """The float32 that `split` took apart."""
    return ((upper_N.view(torch.int16).to(torch.int32) << 16) + rest_N).view(torch.float32)


# Moments in 8 bits, a scale for each block (Dettmers et al., "8-bit optimizers via block-wise quantization", arXiv
# 2110.02861, section 2). Codes are spaced by powers instead of their dynamic tree: no table, an exact zero, and every
# code is rounded stochastically, so that a moment decays at its rate even where one step is less than one code.


def blocks(numbers_N: torch.Tensor) -> torch.Tensor:
    """(N,) as (B, BLOCK), the last block filled with zeros."""
    return F.pad(numbers_N, (0, -numbers_N.numel() % BLOCK)).view(-1, BLOCK)


def encode_first(moment_B: torch.Tensor, bits_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 codes c and float32 scales: c stands for sign(c) · (c / 127)² of the block's largest magnitude."""
    scale_B = moment_B.abs().amax(-1, keepdim=True)
    share_B = moment_B.abs() * (_FIRST_TOP**2 / _positive(scale_B))
    low_B = share_B.sqrt().floor()
    up_B = share_B - low_B * low_B > _uniform(bits_B) * (2 * low_B + 1)
    codes_B = (low_B + up_B).clamp(max=_FIRST_TOP) * moment_B.sign()
    return codes_B.to(torch.int8), scale_B


def decode_first(codes_B: torch.Tensor, scale_B: torch.Tensor) -> torch.Tensor:
    codes_B = codes_B.float()
    return codes_B * codes_B.abs() * (scale_B / _FIRST_TOP**2)


def encode_second(moment_B: torch.Tensor, bits_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 codes c and float32 scales: c stands for (c / 255)⁴ of the block's largest, so its root for (c / 255)².

    What is not zero never becomes zero: it would be divided by.
    """
    scale_B = moment_B.amax(-1, keepdim=True)
    share_B = moment_B * (_SECOND_TOP**4 / _positive(scale_B))
    low_B = share_B.sqrt().sqrt().floor()
    below_B, above_B = low_B.square().square(), (low_B + 1).square().square()
    up_B = share_B - below_B > _uniform(bits_B) * (above_B - below_B)
    codes_B = (low_B + up_B).clamp(max=_SECOND_TOP).maximum((moment_B > 0).float())
    return codes_B.to(torch.uint8), scale_B


def decode_second(codes_B: torch.Tensor, scale_B: torch.Tensor) -> torch.Tensor:
    return codes_B.float().square().square() * (scale_B / _SECOND_TOP**4)


def _positive(scale_B: torch.Tensor) -> torch.Tensor:
    return torch.where(scale_B > 0, scale_B, 1.0)


def _uniform(bits_B: torch.Tensor) -> torch.Tensor:
    """16 random bits each as a number in (0, 1)."""
    return (bits_B.float() + 0.5) * 2.0**-16
