"""img2dataset's resizer, used safely: no descriptors swapped, large and deep images made ready for it."""

import importlib.util
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from pipelines.ingest.failure import Failure
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.transforms import ALBUMENTATIONS
from vlp.core.messages import one_line

REDUCED = {
    ("RGB", 2): cv2.IMREAD_REDUCED_COLOR_2,
    ("RGB", 4): cv2.IMREAD_REDUCED_COLOR_4,
    ("RGB", 8): cv2.IMREAD_REDUCED_COLOR_8,
    ("L", 2): cv2.IMREAD_REDUCED_GRAYSCALE_2,
    ("L", 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
    ("L", 8): cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
PNG_DEPTH = 24  # position of the bits per channel
OPAQUE = ("JPEG", "BMP")  # formats that are decoded by the resizer itself
PIXELS_AT_A_TIME = 2**16  # that are laid on white, which takes 73 bytes for each
MAY_BE_DEEP = ("TIFF", "PPM", "JPEG2000", "AVIF")


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


class Resizer:
    """Decodes, resizes and encodes images by img2dataset's options."""

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        self._resize = _resizer_module().Resizer(
            config.image_size,
            config.resize_mode,
            config.resize_only_if_bigger,
            encode_quality=config.encode_quality,
        )

    def __call__(self, body: bytes, header: Header) -> Resized:
        """A smaller JPEG of an image.

        Raises:
            Failure: decode, if the image cannot be decoded.
        """
        encoded, width, height, *_, error = self._resize(io.BytesIO(self._prepare(body, header)))
        if encoded is None:
            raise Failure("decode", one_line(error)[:200])
        return Resized(encoded, (width, height))

    def _prepare(self, body: bytes, header: Header) -> bytes:
        """The same image, as it is or as plain pixels that the resizer treats better."""
        if header.format == "JPEG" and (flags := self._reduction(header)):
            return _decoded(body, flags)
        if header.format in MAY_BE_DEEP or (header.format == "PNG" and body[PNG_DEPTH] == 16):
            return _plain(_on_white(_of_eight_bits(body, header)))
        if header.format in OPAQUE:
            return body
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
        return body if pixels is None or pixels.dtype != np.uint8 else _plain(_on_white(pixels))

    def _reduction(self, header: Header) -> int:
        """Flags that decode a JPEG at 1/2, 1/4 or 1/8 of its size, or 0.

        The resizer's filter is left at least twice the pixels that it has to make, on each side. A photograph
        of a megapixel takes half of the time, and looks the same.
        """
        if self.config.resize_mode == "no":
            return 0
        is_inside = self.config.resize_mode in ("keep_ratio", "center_crop")
        side = min(header.size) if is_inside else max(header.size)
        for factor in (8, 4, 2):
            if side // factor >= 2 * self.config.image_size and (header.mode, factor) in REDUCED:
                return REDUCED[header.mode, factor] | cv2.IMREAD_IGNORE_ORIENTATION
        return 0


def _decoded(body: bytes, flags: int) -> bytes:
    """The pixels of an image, in a format that is read at the speed of memory."""
    return _plain(_pixels(body, flags))


def _of_eight_bits(body: bytes, header: Header) -> np.ndarray:
    """The pixels, if they have 8 bits per channel, or their highest 8: the resizer would cut others off at
    255."""
    pixels = _pixels(body, cv2.IMREAD_UNCHANGED)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise Failure("decode", f"pixels of {pixels.dtype}, of which none is known to be black or white")
    if header.format not in ("PNG", "TIFF"):
        pixels = _scaled_by_pillow(body)  # white may be less than 65,535
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """The same, laid on white where they are transparent, by the resizer's formula, part by part."""
    if pixels.ndim == 2 or pixels.shape[-1] != 4:
        return pixels
    flat = pixels.reshape(-1, 4)
    opaque = np.empty((len(flat), 3), np.uint8)
    for start in range(0, len(flat), PIXELS_AT_A_TIME):
        part = slice(start, start + PIXELS_AT_A_TIME)
        alpha = flat[part, 3:]
        color = alpha / 255 * flat[part, :3] + 255 - alpha
        opaque[part] = np.rint(color.clip(min=0, max=255))
    return opaque.reshape(*pixels.shape[:2], 3)


def _pixels(body: bytes, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), flags)
    except cv2.error as error:
        raise Failure("decode", one_line(error)[:200]) from error
    if pixels is None:
        raise Failure("decode", "the image cannot be decoded")
    return pixels


def _scaled_by_pillow(body: bytes) -> np.ndarray:
    """(H, W) of 16 bits, or (H, W, 3 or 4) uint8, as OpenCV orders the channels."""
    try:
        with Image.open(io.BytesIO(body)) as image:
            if image.mode.startswith("I"):
                return np.asarray(image).astype(np.uint16)
            kind = "RGBA" if image.has_transparency_data else "RGB"
            pixels = np.asarray(image.convert(kind))
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise Failure("decode", one_line(error)[:200]) from error
    return cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if kind == "RGBA" else cv2.COLOR_RGB2BGR)


def _plain(pixels: np.ndarray) -> bytes:
    """Encoded without being compressed."""
    return cv2.imencode(".pgm" if pixels.ndim == 2 else ".ppm", pixels)[1].tobytes()


@cache
def _resizer_module() -> Any:
    """img2dataset's resizer alone: the package as a whole imports torch, pandas and wandb."""
    package: Any = importlib.util.find_spec("img2dataset")
    file = Path(package.submodule_search_locations[0]) / "resizer.py"
    spec: Any = importlib.util.spec_from_file_location("img2dataset_resizer", file)
    module: Any = importlib.util.module_from_spec(spec)
    with _instead_of("albumentations", ALBUMENTATIONS):
        spec.loader.exec_module(module)
    # It would point stdout and stderr of the whole process elsewhere for every image.
    module.SuppressStdoutStderr = nullcontext
    return module


@contextmanager
def _instead_of(module: str, stand_in: Any) -> Iterator[None]:
    """Context in which an import gives something else."""
    imported = sys.modules.get(module)
    sys.modules[module] = stand_in
    try:
        yield
    finally:
        del sys.modules[module]
        if imported is not None:
            sys.modules[module] = imported
