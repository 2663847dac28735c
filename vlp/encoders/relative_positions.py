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
    from scipy.interpolate import make_interp_spline

    distances = _geometric(old // 2, new // 2)
    places = np.concatenate([-distances[::-1], [0.0], distances])
    wanted = (np.arange(new) - new // 2).clip(places[0], places[-1])
    weights = torch.from_numpy(make_interp_spline(places, np.eye(old))(wanted)).to(table.device)
    square = table[: old**2].double().unflatten(0, (old, old))
    resized = torch.einsum("ik,jl,klh->ijh", weights, weights, square).flatten(0, 1)
    return torch.cat([resized.to(table), table[old**2 :]])


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
