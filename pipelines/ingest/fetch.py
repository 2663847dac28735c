"""One URL to the bytes of an image, with exactly one outcome."""

import hashlib
import io
import re
import time
from dataclasses import dataclass

from img2dataset.downloader import download_image
from img2dataset.resizer import Resizer
from PIL import Image, UnidentifiedImageError

from pipelines.ingest.outcome import RETRIED, SUCCESS, Download, StoredImage, classify


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """How URLs are asked for."""

    timeout: float
    retries: int
    user_agent_token: str | None
    disallowed_header_directives: frozenset[str]

    def __call__(self, url: str) -> Download:
        """Ask for one URL; failures that may pass are tried again, after a growing pause."""
        if not re.match(r"https?://", url, re.IGNORECASE):
            return Download("invalid_url", "only http and https are fetched", None)
        download = self._request(url)
        for attempt in range(self.retries):
            if download.outcome not in RETRIED and not download.outcome.startswith("http_5"):
                break
            time.sleep(0.2 * 2**attempt)
            download = self._request(url)
        return download

    def _request(self, url: str) -> Download:
        _, stream, error = download_image(
            (0, url), self.timeout, self.user_agent_token, self.disallowed_header_directives
        )
        if stream is None:
            return Download(classify(error or "", default="connect"), error, None)
        return Download(SUCCESS, None, stream.getvalue())


def store(download: Download, resizer: Resizer) -> StoredImage:
    """Resize a downloaded image. Only for one thread of a process: the resizer swaps stdout."""
    if download.body is None:
        return StoredImage(download.outcome, download.error)
    encoded, width, height, original_width, original_height, error = resizer(io.BytesIO(download.body))
    if encoded is None:
        undecodable = "decode" if _is_image(download.body) else "not_an_image"
        return StoredImage(classify(error or "", default=undecodable), error)
    digest = hashlib.sha256(download.body).hexdigest()
    return StoredImage(SUCCESS, None, encoded, (width, height), (original_width, original_height), digest)


def _is_image(body: bytes) -> bool:
    try:
        Image.open(io.BytesIO(body)).close()
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return False
    return True
