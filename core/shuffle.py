"""A shuffled order of any length that takes no memory: where a place goes is computed. It knows nothing about rows.

A Feistel network permutes the numbers of an even count of bits; what falls outside the order is sent through it again
until it falls inside (cycle walking): at most four times on average. Round keys come from BLAKE2b over whatever names
the order. Integers only, so every machine computes the same.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import orjson

ROUNDS = 8
_STIR = np.uint64(0x9E3779B97F4A7C15)


def shuffled(places: np.ndarray, count: int, name: Sequence) -> np.ndarray:
    """What stands at `places` (each below `count`) in the order of 0 to `count` - 1 that belongs to `name`."""
    digest = hashlib.blake2b(orjson.dumps(name), digest_size=8 * ROUNDS).digest()
    keys, half = np.frombuffer(digest, "<u8"), max(1, -(-(count - 1).bit_length() // 2))
    found = _permuted(np.asarray(places, np.uint64), keys, half)
    while len(outside := np.flatnonzero(found >= count)):
        found[outside] = _permuted(found[outside], keys, half)
    return found.astype(np.int64)


def _permuted(numbers: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    """A permutation of the numbers of twice `half` bits."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = numbers >> bits, numbers & mask
    for key in keys:
        stirred = (right ^ key) * _STIR
        stirred = (stirred ^ (stirred >> np.uint64(29))) * _STIR
        left, right = right, left ^ (stirred >> np.uint64(32)) & mask
    return left << bits | right
