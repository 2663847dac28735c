"""Encoded images to normalized tensors."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def decode(encoded: bytes) -> Image.Image:
    """An RGB picture; a ValueError or OSError if the bytes are no image."""
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def random_resized_crop(
    image: Image.Image, size: int, *, scale: tuple[float, float], rng: np.random.Generator
) -> Image.Image:
    """A random part of the image, resized to a square with a bicubic filter, as torchvision draws it.

    Args:
        scale: share of the area that is kept, drawn uniformly; the aspect ratio is drawn from [3/4, 4/3].
            Where ten draws do not fit in the image: its largest middle part of such an aspect ratio.
    """
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            break
    else:
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    return image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + w, top + h))


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle square of the image, resized with a bicubic filter."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
