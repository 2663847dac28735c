"""What may become of a URL: one of a closed set of outcomes, each counted once."""

import re
from typing import NamedTuple

SUCCESS, DUPLICATE, NEAR_DUPLICATE = "success", "duplicate", "near_duplicate"

MEANINGS = {
    SUCCESS: "stored",
    "invalid_url": "no http or https address",
    "forbidden_address": "leads into a network that is not public",
    "dns": "the host's name is not known",
    "connect": "the host refuses or breaks off the connection",
    "tls": "the host does not prove who it is",
    "unreadable": "a file on disk that cannot be read",
    "timeout": "no answer, or not all of it, in time",
    "bad_response": "the answer is not HTTP",
    "redirects": "redirected too often, or to nowhere",
    "truncated": "the connection ended before the image did",
    "robots": "disallowed by the host's robots.txt",
    "opt_out": "disallowed by the header X-Robots-Tag",
    "hash_mismatch": "not the image that the list was made of",
    "not_an_image": "something else than an image",
    "decode": "an image that cannot be decoded",
    "decode_timeout": "an image that takes too long to decode",
    "too_large": "more bytes or pixels than allowed",
    "too_small": "fewer pixels than asked for",
    "aspect": "too long for its width",
    "caption": "no caption of the length asked for",
    DUPLICATE: "same bytes as an earlier image",
    NEAR_DUPLICATE: "looks like an earlier image",
}
"""Every outcome but http_400 to http_599, which are the status that the host answered."""

DOWNLOADED = {SUCCESS, DUPLICATE, NEAR_DUPLICATE}
RESIZE_FAILURES = {"not_an_image", "decode", "decode_timeout", "too_large", "too_small", "aspect"}


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
    dhash: int | None = None
    """64 bits that images that look alike share, if such images are dropped."""


def is_outcome(name: str) -> bool:
    """Whether a name belongs to the closed set."""
    return name in MEANINGS or re.fullmatch(r"http_[45]\d\d", name) is not None


def meaning(outcome: str) -> str:
    """What an outcome stands for, in a few words."""
    return MEANINGS.get(outcome) or f"the host answers with status {outcome.removeprefix('http_')}"
