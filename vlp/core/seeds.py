"""Seeds that are pure functions of where they are used."""

import numpy as np

STEP = 0x9E3779B97F4A7C15


def mix_seeds(*parts: int) -> int:
    """One 63-bit seed from several numbers; near numbers give unrelated seeds (splitmix64)."""
    state = 0
    for part in parts:
        state = (state + part + STEP) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def mix_many(*parts: int | np.ndarray) -> np.ndarray:
    """`mix_seeds` of many at once: whole numbers and arrays of them, as numpy broadcasts -> int64, 0 <= x."""
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = scramble(state + np.asarray(part).astype(np.uint64) + np.uint64(STEP))
    return (state >> np.uint64(1)).astype(np.int64)


def scramble(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64, which maps uint64 to uint64 one to one."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
