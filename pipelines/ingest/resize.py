"""The bytes of an image to a smaller JPEG: img2dataset's resize modes, its filters and its white background.

JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where twice the target is left for the filter: a
photograph of a megapixel takes half of the time, and looks the same.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from pipelines.ingest.outcome import Failure
from pipelines.ingest.settings import ResizeMode

REDUCED = {
    ("RGB", 2): cv2.IMREAD_REDUCED_COLOR_2,
    ("RGB", 4): cv2.IMREAD_REDUCED_COLOR_4,
    ("RGB", 8): cv2.IMREAD_REDUCED_COLOR_8,
    ("L", 2): cv2.IMREAD_REDUCED_GRAYSCALE_2,
    ("L", 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
    ("L", 8): cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
WHITE = (255, 255, 255)


class Header(NamedTuple):
    """What an image says of itself before it is decoded."""

    format: str
    mode: str
    """As Pillow names them, such as `JPEG` and `RGB`."""
    size: tuple[int, int]
    """Width and height, in pixels."""


class Resized(NamedTuple):
    """An image as it is stored."""

    encoded: bytes
    """JPEG."""
    size: tuple[int, int]
    """Width and height, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Resizer:
    """Decodes, resizes and encodes images, in one thread each."""

    image_size: int
    mode: ResizeMode
    only_if_bigger: bool
    encode_quality: int

    def __call__(self, body: bytes, header: Header) -> Resized:
        """A smaller JPEG of an image.

        Raises:
            Failure: decode, if the image cannot be decoded.
        """
        cv2.setNumThreads(1)  # images are made in parallel by processes
        target = self._target(header.size)
        try:
            pixels = _decode(body, header, target)
            if target is not None:
                is_smaller = target[0] < header.size[0]
                filter_ = cv2.INTER_AREA if is_smaller else cv2.INTER_LANCZOS4
                pixels = self._fit(cv2.resize(pixels, target, interpolation=filter_))
            _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, self.encode_quality])
        except cv2.error as error:
            raise Failure("decode", " ".join(str(error).split())[:200]) from error
        return Resized(encoded.tobytes(), (pixels.shape[1], pixels.shape[0]))

    def _target(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Width and height before anything is cut off or added; None to keep those of the image."""
        if self.mode == "no":
            return None
        side = min(size) if self.mode in ("keep_ratio", "center_crop") else max(size)
        if side == self.image_size or (side < self.image_size and self.only_if_bigger):
            return None
        width, height = (max(1, round(length * self.image_size / side)) for length in size)
        return width, height

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        """Cut to a square, or padded to one, where the mode asks for squares."""
        height, width = pixels.shape[:2]
        rows, columns = self.image_size - height, self.image_size - width
        if self.mode == "center_crop":
            top, left = -rows // 2, -columns // 2
            return pixels[top : top + self.image_size, left : left + self.image_size]
        if self.mode == "border":
            sides = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
            return cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=WHITE)
        return pixels


def _decode(body: bytes, header: Header, target: tuple[int, int] | None) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, of at least the target's size; what is transparent is white."""
    flags = cv2.IMREAD_UNCHANGED
    if header.format == "JPEG" and target is not None:
        flags = _reduced(header, target)
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), flags)
    if pixels is None:
        raise Failure("decode", "the image cannot be decoded")
    if pixels.dtype == np.uint16:
        pixels = np.right_shift(pixels, 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise Failure("decode", f"pixels of type {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        opacity = pixels[..., 3:] / 255
        pixels = np.rint(pixels[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return pixels


def _reduced(header: Header, target: tuple[int, int]) -> int:
    """Flags that decode a JPEG at the smallest scale that is not below twice the target."""
    for factor in (8, 4, 2):
        is_enough = all(side // factor >= 2 * least for side, least in zip(header.size, target, strict=True))
        if is_enough and (header.mode, factor) in REDUCED:
            return REDUCED[header.mode, factor] | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.IMREAD_UNCHANGED
