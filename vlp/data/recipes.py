"""RandAugment (arXiv:1909.13719) and random erasing (arXiv:1708.04896) of timm, from a seed of each image."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlp.core.normalization import MEAN_STD, Normalization, denormalize, normalize
from vlp.data.transforms import to_tensor

TRANSLATED = 0.45
"""Share of an image's side by which it is moved at most, as in timm."""
SECTIONS = re.compile(r"rand(-t[a-z0-9]+|-[a-z]+[0-9.]+)*")


def check_rand_augment(recipe: str) -> None:
    """Raise a ValueError unless timm knows what a recipe means."""
    try:
        if not SECTIONS.fullmatch(recipe):  # timm takes no notice of a section without a number
            raise ValueError(recipe)
        _rand_augment(recipe, 1, "imagenet")
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(f"timm has no RandAugment {recipe!r}; rand-m9-mstd0.5-inc1 is one") from error


def rand_augmented(image: Tensor, recipe: str, *, seed: int, normalization: Normalization) -> Tensor:
    """An image changed by some operations of RandAugment: (3, S, S) uint8 -> the same.

    Args:
        recipe: in timm's words, such as rand-m9-mstd0.5-inc1.
        normalization: whose mean colour fills what an image that is moved or turned leaves.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    with _drawing_from(seed):
        return to_tensor(_rand_augment(recipe, image.shape[1], normalization)(picture))


def erased(image: Tensor, *, seed: int, normalization: Normalization) -> Tensor:
    """An image with noise in a box of 2 % to a third of its area: (3, S, S) uint8 -> the same.

    The noise has the mean and deviation of the data set; it is cut to what a pixel can hold.
    """
    from timm.data.random_erasing import RandomErasing

    wide = normalize(image, normalization)
    with _drawing_from(seed):
        wide = RandomErasing(1.0, mode="pixel", device="cpu")(wide)
    return denormalize(wide, normalization).mul(255).round().to(torch.uint8)


@lru_cache(maxsize=4)  # it is made of hundreds of objects, for every image alike
def _rand_augment(recipe: str, size: int, normalization: Normalization) -> Any:
    from timm.data.auto_augment import rand_augment_transform

    mean, _ = MEAN_STD[normalization]
    settings = {
        "translate_const": int(size * TRANSLATED),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
        "interpolation": Image.Resampling.BICUBIC,
    }
    return rand_augment_transform(recipe, settings)


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Have the generators that timm draws from, which are the process's, give what a seed stands for."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
