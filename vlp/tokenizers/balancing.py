"""MetaCLIP's balance (arXiv:2309.16671, section 3.3): pairs of frequent entries alone are thinned out.

A pair draws a number for every entry of its caption, and stays if any of them passes. The draws depend on the
seed, the pair and the entry alone, so it does not matter where, when or in which company a pair is looked at.
"""

import hashlib

import numpy as np

from vlp.core.seeds import mix_many
from vlp.tokenizers.token_rows import TokenRows


def pass_probability(counts: np.ndarray, t: float) -> np.ndarray:
    """Chance that the draw of an entry passes, t / max(count, t): (vocabulary,) int64 -> float64."""
    return t / np.maximum(counts, t)


def pair_number(image: str, caption: str) -> int:
    """The number that a pair is known by, in 0..2^63 - 1; of an image by whatever names it."""
    digest = hashlib.sha256(f"{image}\n{caption}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def draw(seed: int, pairs: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """What pairs draw for entries, uniform in [0, 1): (N,) int64 twice -> (N,) float64."""
    return (mix_many(seed, pairs, entries) >> 10) / 2.0**53  # all of 53 bits, so that none is rounded to 1


def pass_draw(rows: TokenRows, pairs: np.ndarray, probability: np.ndarray, *, seed: int) -> np.ndarray:
    """Which pairs stay; one without entries does not: (B,) bool.

    Args:
        rows: the entries of B captions.
        pairs: (B,) int64, as `pair_number` gives them.
        probability: (vocabulary,), as `pass_probability` gives it.
    """
    owners = np.arange(len(pairs)).repeat(rows.lengths)
    passed = draw(seed, pairs[owners], rows.ids) < probability[rows.ids]
    stays = np.zeros(len(pairs), dtype=bool)
    stays[owners[passed]] = True
    return stays
