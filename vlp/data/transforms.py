"""Encoded images to pixels."""

import io
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

JPEG_MAGIC = b"\xff\xd8\xff"
MAX_PIXELS = 1 << 28
DEPTH_UNKNOWN = ("I", "F")
"""Modes of Pillow whose pixels are integers of 32 bits, or floating-point numbers."""
FLAWS = (ValueError, KeyError)  # what simplejpeg raises at a JPEG that Pillow may put up with


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """The same with the highest 8 of 16 bits: Pillow would cut the others off at 255."""
    if image.mode in DEPTH_UNKNOWN:
        raise ValueError(f"pixels of the mode {image.mode}, of which none is known to be black or white")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


class EncodedImage:
    """An image of which only what is asked for is decoded.

    Raises:
        ValueError, OSError: the bytes are no image, or break off.
    """

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded
        self.is_jpeg = encoded.startswith(JPEG_MAGIC)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        size = self._jpeg_size() if self.is_jpeg else None
        size = size or self._open().size
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"an image of {size[0]} x {size[1]} pixels is larger than any photograph")
        return size

    def picture(self) -> Image.Image:
        """The whole image, in RGB."""
        try:
            return _of_eight_bits(self._open()).convert("RGB")
        except (ValueError, OSError):
            raise
        except Exception as error:  # decoders meet broken bytes with errors of any kind
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def decode_for(self, box: Box, *, min_size: int) -> tuple[np.ndarray, int]:
        """Pixels of the image at 1/scale of its size, (H, W, 3) uint8, and the scale.

        A JPEG is decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 that leaves both sides of the box
        `min_size` pixels, which costs less than to decode and shrink it.
        """
        scale = max(k for k in (1, 2, 4, 8) if k == 1 or min(box.width, box.height) >= k * min_size)
        pixels = self._decode_scaled(scale) if self.is_jpeg else None
        return (np.array(self.picture()), 1) if pixels is None else (pixels, scale)

    def _open(self) -> Image.Image:
        """Read the header."""
        try:
            return Image.open(io.BytesIO(self.encoded))
        except OSError as error:
            raise ValueError("no image of a known format") from error
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error

    def _jpeg_size(self) -> tuple[int, int] | None:
        """Width and height; None where Pillow has to judge it."""
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(self.encoded, strict=False)
        except FLAWS:
            return None
        return int(width), int(height)

    def _decode_scaled(self, scale: int) -> np.ndarray | None:
        """A JPEG at 1/scale of its size: (H, W, 3); None where Pillow has to judge it."""
        width, height = self.size
        try:
            return simplejpeg.decode_jpeg(
                self.encoded, min_width=math.ceil(width / scale), min_height=math.ceil(height / scale)
            )
        except FLAWS:
            return None


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
