"""What may become of a URL: one of a closed set of outcomes, each counted once."""

import re
from typing import NamedTuple

SUCCESS = "success"
RETRIED = {"timeout", "connect", "dns", "truncated", "http_429"}

# What the fetching library reports as text, in the order it is tried.
REASONS = (
    (r"HTTP Error (\d{3})", r"http_\1"),
    (r"disallowed by X-Robots-Tag", "opt_out"),
    (r"timed out", "timeout"),
    (r"Name or service not known|name resolution|nodename nor servname|No address associated", "dns"),
    (r"SSL|CERTIFICATE", "tls"),
    (r"control characters|nonnumeric port|no host given|Invalid IPv6|can't encode|idna", "invalid_url"),
    (r"IncompleteRead", "truncated"),
    (r"image too small", "too_small"),
    (r"image area too large", "too_large"),
    (r"aspect ratio too large", "aspect"),
)


class Download(NamedTuple):
    """The raw answer to one request."""

    outcome: str
    error: str | None
    body: bytes | None


class StoredImage(NamedTuple):
    """An image as it goes into a shard, or why there is none."""

    outcome: str
    error: str | None = None
    encoded: bytes | None = None
    size: tuple[int, int] = (0, 0)
    """Width and height, in pixels."""
    original_size: tuple[int, int] = (0, 0)
    sha256: str | None = None
    """Of the body that was downloaded."""


def classify(error: str, *, default: str) -> str:
    """The outcome that an error message stands for."""
    for pattern, outcome in REASONS:
        match = re.search(pattern, error)
        if match:
            return match.expand(outcome)
    return default
