"""The transforms of albumentations that img2dataset's resizer calls, with the same results, in OpenCV alone.

To import albumentations takes every process half a second, in which it resizes 350 images, and 40 MB.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import cv2
import numpy as np

Transform = Callable[..., dict[str, np.ndarray]]


def smallest_max_size(*, max_size: int, interpolation: int, p: float) -> Transform:
    """Scale so that the shorter side has `max_size` pixels."""
    return _always(lambda image: _scale(image, max_size / min(image.shape[:2]), interpolation), p)


def longest_max_size(*, max_size: int, interpolation: int, p: float) -> Transform:
    """Scale so that the longer side has `max_size` pixels."""
    return _always(lambda image: _scale(image, max_size / max(image.shape[:2]), interpolation), p)


def center_crop(*, height: int, width: int) -> Transform:
    """The middle of an image that is large enough."""

    def crop(image: np.ndarray) -> np.ndarray:
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return image[top : top + height, left : left + width]

    return _always(crop)


def pad_if_needed(
    *, min_height: int, min_width: int, border_mode: int, value: Sequence[int], p: float
) -> Transform:
    """The image in the middle of a larger one."""

    def pad(image: np.ndarray) -> np.ndarray:
        rows, columns = max(0, min_height - image.shape[0]), max(0, min_width - image.shape[1])
        top, left = rows // 2, columns // 2
        sides = (top, rows - top, left, columns - left)
        return cv2.copyMakeBorder(image, *sides, border_mode, value=value)

    return _always(pad, p)


ALBUMENTATIONS = SimpleNamespace(
    SmallestMaxSize=smallest_max_size,
    LongestMaxSize=longest_max_size,
    CenterCrop=center_crop,
    PadIfNeeded=pad_if_needed,
)


def _always(function: Callable[[np.ndarray], np.ndarray], p: float = 1.0) -> Transform:
    assert p == 1.0, "nothing is left to chance"
    return lambda image: {"image": function(image)}


def _scale(image: np.ndarray, factor: float, interpolation: int) -> np.ndarray:
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=interpolation)
