"""The bytes of an image to the image that is stored, or to the reason why none is."""

import hashlib
import io
import re

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipelines.ingest.failure import Download, Failure
from pipelines.ingest.resize import Header, Resizer
from pipelines.ingest.settings import DownloadConfig
from vlp.shards.outcome import SUCCESS, StoredImage

Image.init()
FORMATS = [
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
    if name in Image.OPEN
]
TIFF, BIG_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), ord("+")
BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339  # tags of a TIFF
SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "floating-point complex"}
NOT_READ = {"HEIC": rb".{4}ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL "}
"""Formats that nothing reads here -> how their files begin."""


class ImageStore:
    """Checks, resizes and encodes images."""

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        self.resize = Resizer(config)

    def __call__(self, download: Download) -> StoredImage:
        """What is stored of an answer, or why nothing is."""
        if download.body is None:
            return StoredImage(download.outcome, download.error)
        try:
            return self._store(download.body)
        except Failure as failure:
            return StoredImage(failure.outcome, str(failure))

    def _store(self, body: bytes) -> StoredImage:
        header = read_header(body)
        self._check(*header.size)
        encoded, size = self.resize(body, header)
        digest = hashlib.sha256(body).hexdigest()
        dhash = difference_hash(encoded) if self.config.drop_duplicates == "near" else None
        return StoredImage(SUCCESS, None, encoded, size, header.size, digest, dhash)

    def _check(self, width: int, height: int) -> None:
        """Refuse an image by its size alone."""
        shown = f"{width:,} x {height:,} pixels"
        if width * height > self.config.max_image_area:
            raise Failure("too_large", shown)
        if min(width, height) < max(1, self.config.min_image_size):
            raise Failure("too_small", shown)
        if max(width, height) > self.config.max_aspect_ratio * min(width, height):
            raise Failure("aspect", shown)


def read_header(body: bytes) -> Header:
    """What an image declares, without decoding it: a small file may be a huge picture.

    Raises:
        Failure: not_an_image, if the bytes are of no known format; decode, if of one that nothing reads here.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            return Header(image.format or "", image.mode, image.size)
    except Image.DecompressionBombError as error:
        raise Failure("too_large", str(error)) from error
    except UnidentifiedImageError as error:
        if reason := _why_not_read(body):
            raise Failure("decode", reason) from error
        raise Failure("not_an_image", f"{len(body):,} bytes that begin {body[:16]!r}") from error
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise Failure("decode", f"{type(error).__name__}: {error}"[:200]) from error


def _why_not_read(body: bytes) -> str | None:
    """What kind of image it is of which no pixels are known; None if it is none."""
    if body.startswith(TIFF):
        return _describe_tiff(body)
    name = next((name for name, pattern in NOT_READ.items() if re.match(pattern, body, re.DOTALL)), None)
    return name and f"the format {name} is not read"


def _describe_tiff(body: bytes) -> str:
    try:
        tags = ImageFileDirectory_v2(body[:8] if body[2] != BIG_TIFF else body[:16])
        stream = io.BytesIO(body)
        stream.seek(tags.next)
        tags.load(stream)
        bits = ", ".join(map(str, tags.get(BITS_PER_SAMPLE, (1,))))
        kinds = {SAMPLE_FORMATS.get(kind, "unknown") for kind in tags.get(SAMPLE_FORMAT, (1,))}
        return f"a TIFF of {' and '.join(sorted(kinds))} samples of {bits} bits is not read"
    except Exception:  # a parser of hostile bytes may raise anything
        return "a TIFF whose header is damaged"


def difference_hash(encoded: bytes) -> int:
    """64 bits, one per pair of neighbours in a row of the image at 9 x 8 pixels: whether it grows brighter.

    The difference hash (dHash) of Neal Krawetz, 2013: equal for images that differ in size or compression.
    """
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None, "what was encoded can be decoded"
    small = cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
