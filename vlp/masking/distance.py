"""How far hidden pixels are from what the encoder sees (arXiv:2111.09886, section 4.1.2)."""

from math import isqrt

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


def distance_of_patches(hidden: Tensor, patch_size: int) -> Tensor:
    """`average_distance` of masks of whole square patches, for which few pixels need to be compared.

    Of all pixels of a patch, that in the row and column nearest to another pixel is the nearest to it.

    Args:
        hidden: (B, N) bool, per patch.

    Returns:
        (B,) pixels.
    """
    B, N = hidden.shape
    side = isqrt(N)
    squares = _squares_to_patches(side, patch_size, device=hidden.device)  # (H, side)
    blocked = torch.where(hidden.view(B, 1, side, side), torch.inf, 0.0)
    down = (squares[None, :, :, None] + blocked).amin(dim=2)  # (B, H, side)
    distance = (down[:, :, None, :] + squares).amin(dim=3).sqrt()  # (B, H, W)
    return distance.sum(dim=(1, 2)) / (hidden.sum(dim=1) * patch_size**2).clamp(min=1)


def _squares_to_patches(side: int, patch_size: int, *, device: torch.device) -> Tensor:
    """Squared distance of each pixel of a line to the nearest one of each patch: (H, side)."""
    pixel = torch.arange(side * patch_size, device=device, dtype=torch.float32)[:, None]
    first = torch.arange(side, device=device, dtype=torch.float32) * patch_size
    return (pixel - pixel.clamp(first, first + patch_size - 1)).square()
