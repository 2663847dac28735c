"""Tables of relative positions, for windows of another size."""

from math import isqrt

import numpy as np
import torch
from torch import Tensor

NUM_SPECIAL = 3
"""Last entries of a table with a class token: from it, to it, and of it to itself."""


def resized_table(table: Tensor, *, num_entries: int) -> Tensor:
    """A table of relative positions of a square, for another square: (L, heads) -> (num_entries, heads).

    Bicubic, on places whose distances grow geometrically, so that near neighbours stay what they are (BEiT,
    arXiv:2106.08254, as SimMIM's release does). One of no square is given back as it is.
    """
    num_special = 0 if isqrt(num_entries) ** 2 == num_entries else NUM_SPECIAL
    old, new = isqrt(max(0, len(table) - num_special)), isqrt(num_entries - num_special)
    if old == new or old < 4 or old**2 + num_special != len(table):  # a cubic needs four places
        return table
    from scipy.interpolate import RectBivariateSpline

    distances = _geometric(old // 2, new // 2)
    places = np.concatenate([-distances[::-1], [0.0], distances])
    wanted = np.arange(new) - new // 2
    maps = table[: old**2].T.double().cpu().numpy().reshape(-1, old, old)
    found = np.stack([RectBivariateSpline(places, places, one)(wanted, wanted) for one in maps])
    resized = torch.from_numpy(found).flatten(1).T.to(table)
    return torch.cat([resized, table[old**2 :]])


def _geometric(count: int, reach: int) -> np.ndarray:
    """Distances 1, 1 + q, 1 + q + q^2, ..., of which the last is `reach`; q by bisection: (count,)."""
    left, q, right = 1.01, 1.25, 1.5
    while right - left > 1e-6:
        q = (left + right) / 2
        if (1 - q**count) / (1 - q) > reach:
            right = q
        else:
            left = q
    return np.cumsum(q ** np.arange(count, dtype=np.float64))
