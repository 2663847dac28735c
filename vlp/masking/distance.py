"""How far hidden pixels are from what the encoder sees (arXiv:2111.09886, section 4.1.2)."""

import torch
from torch import Tensor


def average_distance(hidden: Tensor) -> Tensor:
    """AvgDist of each mask: mean distance of the hidden pixels to the nearest visible one.

    Distances are Euclidean and exact: first down the columns, then across the rows, as the squares add up.

    Args:
        hidden: (B, H, W) bool, per pixel.

    Returns:
        (B,) pixels; 0 where nothing is hidden, infinite where everything is.
    """
    return torch.stack([_average_distance(one) for one in hidden])


def _average_distance(hidden: Tensor) -> Tensor:
    H, W = hidden.shape
    rows, columns = (torch.arange(n, device=hidden.device, dtype=torch.float32) for n in (H, W))
    squares = (rows[:, None] - rows[None]).square()  # (H, H)
    blocked = torch.where(hidden, torch.inf, 0.0)  # (H, W)
    down = (squares[:, :, None] + blocked[None]).amin(dim=1)  # (H, W)
    squares = (columns[:, None] - columns[None]).square()
    distance = (down[:, None, :] + squares[None]).amin(dim=2).sqrt()  # (H, W)
    return distance.sum() / hidden.sum().clamp(min=1)
