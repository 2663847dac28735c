"""Images mixed in pairs: mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899), as timm mixes a batch.

timm pairs the first image of a batch with its last; here neighbours are pairs, so that it does not matter how
many workers share a batch. Which images are neighbours is random already.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SWITCH = 0.5
"""Share of the steps at which boxes are exchanged, where both ways are chosen."""


class Box(NamedTuple):
    """A part of an image, in pixels: rows from `top` to `bottom`, columns from `left` to `right`."""

    top: int
    bottom: int
    left: int
    right: int


class Mix(NamedTuple):
    """What becomes of every pair of a global batch."""

    own: float
    """Share that an image has of what comes of it; the rest is its partner's."""
    box: Box | None = None
    """What the partner's pixels replace; None where all pixels are averaged."""


def draw_mix(rng: np.random.Generator, *, mixup: float, cutmix: float, height: int, width: int) -> Mix:
    """One choice for a batch.

    Args:
        mixup: alpha of the beta distribution of the share, 0 for never.
        cutmix: the same where boxes are exchanged.
        height, width: of the images, in pixels.
    """
    places = rng.random(3)
    averaged, cut = (rng.beta(alpha, alpha) if alpha else 1.0 for alpha in (mixup, cutmix))
    if not cutmix or (mixup and places[0] >= SWITCH):
        return Mix(float(averaged))
    box = box_around(int(places[1] * height), int(places[2] * width), 1 - cut, height=height, width=width)
    area = (box.bottom - box.top) * (box.right - box.left)
    return Mix(1 - area / (height * width), box)


def box_around(row: int, column: int, share: float, *, height: int, width: int) -> Box:
    """The box of a share of an image's area, and of its shape, around a pixel; what is outside is cut off."""
    tall, wide = int(height * share**0.5), int(width * share**0.5)
    top, left = row - tall // 2, column - wide // 2
    bottom, right = row + (tall + 1) // 2, column + (wide + 1) // 2
    return Box(max(0, top), min(height, bottom), max(0, left), min(width, right))


def partners(rows: Tensor) -> Tensor:
    """Each row's neighbour in its place, (B, ...) twice; the last of an odd number is its own."""
    places = torch.arange(len(rows), device=rows.device)
    return rows[(places ^ 1).clamp(max=len(rows) - 1)]


def mixed_images(images: Tensor, mix: Mix) -> Tensor:
    """(B, 3, H, W) twice."""
    if mix.box is None:
        return images * mix.own + partners(images) * (1 - mix.own)
    top, bottom, left, right = mix.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners(images[:, :, top:bottom, left:right])
    return mixed


def soft_targets(labels: Tensor, num_classes: int, *, own: float, smoothing: float) -> Tensor:
    """How much of each class mixed images are said to show: (B,) int64 -> (B, K), rows that sum to 1.

    Args:
        own: share of an image's own label; the rest is its partner's.
        smoothing: share of all that is spread over all classes alike (arXiv:1512.00567).
    """
    one_hot = (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
    smooth = one_hot * (1 - smoothing) + smoothing / num_classes
    return smooth * own + partners(smooth) * (1 - own)
