"""Resizing a part of an image whose edges lie within pixels."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlp.data.config import Interpolation

MAX_BEFORE, TOLERANCE = 8, 1 / 32
RESIZE = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
}
"""What `F.interpolate` calls with antialias, where a scale need not be that of whole pixels."""


class _Side(NamedTuple):
    """What is read of the image along one axis, and what is made of it."""

    begin: int
    end: int
    num_before: int
    """Pixels of the result before the part."""
    scale: float
    """Pixels of the result per pixel of the image."""


def resize_part(
    pixels: np.ndarray,
    columns: tuple[float, float],
    rows: tuple[float, float],
    *,
    size: int,
    interpolation: Interpolation,
) -> Tensor:
    """A part of an image, resized with antialiasing: (H, W, 3) uint8 -> (3, size, size) uint8.

    PyTorch resizes from the edge of a pixel. Where the part begins within one, pixels of the result that lie
    before it are made, too: as many of eight as bring their edge next to that of a pixel, within 1/32 of it
    mostly; near the left and upper edges of an image it may be farther away. Pillow, which resizes any part,
    takes twice the time.

    Args:
        columns: where the part begins, and its width, in pixels.
        rows: where the part begins, and its height.
    """
    (left, right, more_left, x_scale), (top, bottom, more_top, y_scale) = (
        _side(*part, size) for part in (columns, rows)
    )
    crop = torch.from_numpy(pixels[top:bottom, left:right])
    batch = crop[None].permute(0, 3, 1, 2)  # strides of one image that resize fast
    shape = [size + more_top, size + more_left]
    return RESIZE[interpolation](batch, shape, False, y_scale, x_scale)[0, :, more_top:, more_left:]


def _side(begin: float, length: float, size: int) -> _Side:
    step = length / size
    starts = [begin - num * step for num in range(MAX_BEFORE + 1) if num * step <= begin]
    distances = [abs(start - round(start)) for start in starts]
    near = (num for num, distance in enumerate(distances) if distance <= TOLERANCE)
    num_before = next(near, distances.index(min(distances)))
    return _Side(round(starts[num_before]), math.ceil(begin + length), num_before, size / length)
