"""What img2dataset says became of a URL, as one of our outcomes."""

import re

FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE = "failed_to_download", "failed_to_resize"
HTTP_ERROR = re.compile(r"HTTP Error ([45]\d\d)")
REASONS = {
    "opt_out": r"X-Robots-Tag",
    "hash_mismatch": r"hash mismatch",
    "too_small": r"image too small",
    "too_large": r"image area too large",
    "aspect": r"aspect ratio too large",
    "decode": r"image decoding error",
    "redirects": r"HTTP Error 3\d\d|redirect",
    "timeout": r"timed? ?out",
    "dns": r"name or service|name resolution|nodename|getaddrinfo|no address associated|idna",
    "tls": r"ssl|certificate|tlsv1",
    "truncated": r"IncompleteRead",
    "invalid_url": r"unknown url type|no host given|nonnumeric port|can't contain|codec can't encode",
    "connect": r"refused|reset|unreachable|no route|remote end closed|connection aborted|broken pipe",
    "bad_response": r"bad ?status|got more than",
}
"""Outcome -> what its messages contain, in any letters; the first that fits."""


def outcome_of(status: str, message: str | None) -> str:
    """The outcome that a status and an error message stand for; the status itself where neither tells."""
    if status not in (FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE):
        return status
    if found := HTTP_ERROR.search(message or ""):
        return f"http_{found[1]}"
    for outcome, pattern in REASONS.items():
        if re.search(pattern, message or "", re.IGNORECASE):
            return outcome
    return "decode" if status == FAILED_TO_RESIZE else status
