"""What training sees of an image: a random part of it, mirrored and recoloured as the recipe says."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from vlp.data.config import DataConfig
from vlp.data.recipes import erased, rand_augmented
from vlp.data.resizing import resize_part
from vlp.data.transforms import Box, EncodedImage, to_tensor

ASPECT_RATIO = (3 / 4, 4 / 3)


class ColorJitter(NamedTuple):
    """Factors of the changes of an image's colours, and the order they are made in."""

    factors: tuple[float, ...]
    """Brightness, contrast and saturation, where 1 changes nothing; hue in turns, where 0 changes nothing."""
    order: tuple[int, ...]
    """A permutation of the four."""


class Augmentation(NamedTuple):
    """What becomes of one image."""

    crop: Box
    is_flipped: bool
    jitter: ColorJitter | None
    is_gray: bool
    rand_augment_seed: int | None = None
    """Of the operations of RandAugment; None for none."""
    erasing_seed: int | None = None
    """Of the box that is filled with noise, and of the noise; None where nothing is erased."""


def draw_augmentation(size: tuple[int, int], config: DataConfig, rng: np.random.Generator) -> Augmentation:
    """Choose what becomes of an image of a width and height in pixels.

    Every choice is drawn, used or not: a setting changes what it is for and no other choice.
    """
    flip, jitter, gray = rng.random(3)
    colors = draw_jitter(config.color_jitter, rng)
    crop = draw_crop(size, config.crop_scale, rng)
    erasing, seeds = rng.random(), rng.integers(2**32, size=2).tolist()
    return Augmentation(
        crop,
        is_flipped=bool(flip < config.horizontal_flip_prob),
        jitter=colors if jitter < config.color_jitter_prob else None,
        is_gray=bool(gray < config.gray_scale_prob),
        rand_augment_seed=None if config.rand_augment is None else seeds[0],
        erasing_seed=seeds[1] if erasing < config.erasing_prob else None,
    )


def draw_crop(size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A random part of an image, as torchvision draws it.

    Args:
        scale: share of the area that is kept, drawn uniformly; the aspect ratio is drawn from [3/4, 4/3].
            Where ten draws do not fit in the image: its largest middle part of such an aspect ratio.
    """
    width, height = size
    low, high = ASPECT_RATIO
    for _ in range(10):
        area, aspect, x, y = rng.random(4).tolist()
        area = width * height * (scale[0] + area * (scale[1] - scale[0]))
        aspect = low * (high / low) ** aspect
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(x * (width - w + 1)), int(y * (height - h + 1)), w, h)
    w, h = min(width, round(height * high)), min(height, round(width / low))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def draw_jitter(strength: tuple[float, float, float, float], rng: np.random.Generator) -> ColorJitter:
    """Random changes of colours, as torchvision draws them."""
    places, order = rng.random(4).tolist(), rng.random(4).argsort().tolist()
    *scales, hue = strength
    ranges = [*((max(0, 1 - by), 1 + by) for by in scales), (-hue, hue)]
    factors = tuple(low + place * (high - low) for (low, high), place in zip(ranges, places, strict=True))
    return ColorJitter(factors, tuple(order))


def augment(encoded: EncodedImage, augmentation: Augmentation, config: DataConfig, *, size: int) -> Tensor:
    """The chosen view of an image: (3, size, size) uint8."""
    pixels, scale = encoded.decode_for(augmentation.crop, min_size=size)
    left, top, width, height = (length / scale for length in augmentation.crop)
    image = resize_part(pixels, (left, width), (top, height), size=size, interpolation=config.interpolation)
    if augmentation.is_flipped:
        image = image.flip(-1)
    if augmentation.jitter is not None:
        image = change_colors(image, augmentation.jitter)
    if augmentation.is_gray:
        from torchvision.transforms.functional import rgb_to_grayscale

        image = rgb_to_grayscale(image, num_output_channels=3)
    return _regularized(image, augmentation, config)


def _regularized(image: Tensor, augmentation: Augmentation, config: DataConfig) -> Tensor:
    """After RandAugment and random erasing, where they are chosen: (3, H, W) uint8 -> the same."""
    if augmentation.rand_augment_seed is not None:
        assert config.rand_augment is not None
        seed, normalization = augmentation.rand_augment_seed, config.normalization
        image = rand_augmented(image, config.rand_augment, seed=seed, normalization=normalization)
    if augmentation.erasing_seed is not None:
        image = erased(image, seed=augmentation.erasing_seed, normalization=config.normalization)
    return image


def change_colors(image: Tensor, jitter: ColorJitter) -> Tensor:
    """Another brightness, contrast, saturation and hue: (3, H, W) uint8 -> the same."""
    from torchvision.transforms import (
        functional,
    )  # takes 1.3 s, and only training that changes colours needs it

    picture = Image.fromarray(image.permute(1, 2, 0).numpy())  # Pillow changes a hue faster than torch does
    for change in jitter.order:
        if jitter.factors[change] != UNCHANGED[change]:
            picture = getattr(functional, CHANGES[change])(picture, jitter.factors[change])
    return to_tensor(picture)


CHANGES = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")  # of torchvision
UNCHANGED = (1, 1, 1, 0)
