"""The bytes of an image to the image that is stored, or to the reason why none is."""

import hashlib
import io

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

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
        Failure: not_an_image, if the bytes are of no known format.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            return Header(image.format or "", image.mode, image.size)
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
    assert pixels is not None, "what was encoded can be decoded"
    small = cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
