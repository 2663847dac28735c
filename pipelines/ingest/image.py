"""The bytes of an image to the image that is stored, by img2dataset's resizer."""

import hashlib
import importlib.util
import io
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.ingest.outcome import SUCCESS, Download, Failure, StoredImage
from pipelines.ingest.settings import DownloadConfig

Image.init()
FORMATS = [
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
    if name in Image.OPEN
]

# What the resizer reports as text.
REASONS = {
    "image too small": "too_small",
    "image area too large": "too_large",
    "aspect ratio too large": "aspect",
}


class ImageStore:
    """Resizes and encodes images. Only for one thread of a process: the resizer swaps stdout."""

    def __init__(self, config: DownloadConfig) -> None:
        self.max_image_area = config.max_image_area
        self.is_hashed = config.drop_duplicates == "near"
        self.resize = _resizer_module().Resizer(
            config.image_size,
            config.resize_mode,
            config.resize_only_if_bigger,
            encode_quality=config.encode_quality,
            min_image_size=config.min_image_size,
            max_aspect_ratio=config.max_aspect_ratio,
        )

    def __call__(self, download: Download) -> StoredImage:
        """What is stored of an answer, or why nothing is."""
        if download.body is None:
            return StoredImage(download.outcome, download.error)
        try:
            return self._store(download.body)
        except Failure as failure:
            return StoredImage(failure.outcome, str(failure))

    def _store(self, body: bytes) -> StoredImage:
        width, height = read_size(body)
        if width * height > self.max_image_area:
            raise Failure("too_large", f"{width:,} x {height:,} pixels")
        encoded, *sizes, error = self.resize(io.BytesIO(body))
        if encoded is None:
            raise Failure(REASONS.get(error, "decode"), error)
        digest = hashlib.sha256(body).hexdigest()
        dhash = difference_hash(encoded) if self.is_hashed else None
        return StoredImage(SUCCESS, None, encoded, (sizes[0], sizes[1]), (sizes[2], sizes[3]), digest, dhash)


def read_size(body: bytes) -> tuple[int, int]:
    """Width and height that an image declares, without decoding it: a small file may be a huge picture.

    Raises:
        Failure: not_an_image, if the bytes are of no known format.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise Failure("too_large", str(error)) from error
    except UnidentifiedImageError as error:
        raise Failure("not_an_image", f"{len(body):,} bytes that begin {body[:16]!r}") from error
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise Failure("decode", f"{type(error).__name__}: {error}"[:200]) from error


def difference_hash(encoded: bytes) -> int:
    """64 bits, one per pair of neighbours in a row of the image at 9 x 8 pixels: whether it grows brighter.

    The difference hash (dHash) of Neal Krawetz, 2013: equal for images that differ in size or compression.
    """
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None, "the resizer encodes what can be decoded"
    small = cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _resizer_module() -> ModuleType:
    """img2dataset's resizer alone: the package as a whole imports torch, pandas and wandb."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it imports a library that phones home
    package: Any = importlib.util.find_spec("img2dataset")
    file = Path(package.submodule_search_locations[0]) / "resizer.py"
    spec: Any = importlib.util.spec_from_file_location("img2dataset_resizer", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
