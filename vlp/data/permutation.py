"""Random permutations of any length, in memory that does not grow with it."""

import numpy as np

from vlp.core.seeds import mix_seeds, scramble

ROUNDS = 6
"""Four make a Feistel network a strong pseudo-random permutation; two more are for short halves."""
MIN_HALF_BITS = 4
"""On fewer bits some permutations are several times as likely as others."""


def permute(positions: np.ndarray, num_items: int, *, seed: int) -> np.ndarray:
    """Where a random permutation of range(num_items) sends some positions: (B,) int64 -> (B,) int64.

    A Feistel network permutes the numbers of the least even number of bits that holds num_items; what falls
    outside walks on along its cycle (Black and Rogaway, 2002).
    """
    half = np.uint64(max(MIN_HALF_BITS, ((num_items - 1).bit_length() + 1) // 2))
    keys = [np.uint64(mix_seeds(seed, num_items, i)) for i in range(ROUNDS)]
    result = _feistel(positions.astype(np.uint64), half, keys)
    while (is_outside := result >= num_items).any():
        result[is_outside] = _feistel(result[is_outside], half, keys)
    return result.astype(np.int64)


def _feistel(numbers: np.ndarray, half: np.uint64, keys: list[np.uint64]) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in keys:
        left, right = right, left ^ (scramble(right + key) & mask)
    return left << half | right
