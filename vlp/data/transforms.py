"""Encoded images to pixels."""

import io
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


class EncodedImage:
    """An image of which only what is asked for is decoded.

    Raises:
        ValueError, OSError: the bytes are no image, or break off.
    """

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded

    @cached_property
    def _file(self) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded))  # reads the header only

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._file.size

    def picture(self) -> Image.Image:
        """The whole image, in RGB."""
        return self._file.convert("RGB")

    def crop(self, box: Box, *, min_size: int) -> Tensor:
        """The pixels of a part of it: (3, H, W) uint8, with the channels of a pixel side by side.

        A JPEG is decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 that leaves both sides of the box
        `min_size` pixels, which costs less than to decode and shrink it.
        """
        scale = max(k for k in (1, 2, 4, 8) if k == 1 or min(box.width, box.height) >= k * min_size)
        width, height = self.size
        if self._file.format == "JPEG":
            self._file.draft("RGB", (width // scale, height // scale))
        pixels = to_tensor(self.picture())
        scale = round(width / pixels.shape[2])  # 1 for what is no JPEG
        left, top, w, h = (length // scale for length in box)
        part = pixels[:, top : top + h, left : left + w]
        return part[None].contiguous(memory_format=torch.channels_last)[0]  # resized faster than a view


def decode(encoded: bytes) -> Image.Image:
    """An RGB picture; a ValueError or OSError if the bytes are no image."""
    return EncodedImage(encoded).picture()


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle of the image, its shorter side resized with a bicubic filter: what open_clip evaluates."""
    width, height = image.size
    shorter = min(width, height)
    width, height = size * width // shorter, size * height // shorter
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
