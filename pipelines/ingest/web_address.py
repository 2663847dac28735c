"""The parts of a URL, as a request needs them."""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from pipelines.ingest.failure import Failure

DEFAULT_PORTS = {"http": 80, "https": 443}
KEPT = "/%:@!$&'()*+,;=~-._[]|^`{}\"<>\\"  # of a path; what else is not a letter or digit is encoded


class Origin(NamedTuple):
    """Whom a connection leads to."""

    scheme: str
    host: str
    port: int


def parse_url(url: str) -> tuple[Origin, str]:
    """Whom to ask, and for what: non-ASCII characters and spaces are encoded as browsers do.

    Raises:
        Failure: invalid_url, for whatever is not an http or https address.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").encode("idna").decode("ascii")
        target = quote(parts.path or "/", safe=KEPT)
        if parts.query:
            target += "?" + quote(parts.query, safe=KEPT + "?")
    except ValueError as error:
        raise Failure("invalid_url", str(error)) from error
    _check(url, parts, host)
    return Origin(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme]), target


def host_of(url: str) -> str:
    """The host that a URL names; the URL itself if it names none."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url


def _check(url: str, parts: SplitResult, host: str) -> None:
    if parts.scheme not in DEFAULT_PORTS:
        raise Failure("invalid_url", "only http and https are fetched")
    # urlsplit drops some of these silently, and would ask for something else.
    if re.search(r"[\x00-\x1f\x7f]", url) or re.search(r"[\x00-\x20\x7f]", host):
        raise Failure("invalid_url", "the URL contains control characters")
    if not host:
        raise Failure("invalid_url", "the URL names no host")
    if parts.username is not None or parts.password is not None:
        raise Failure("invalid_url", "the URL holds a user name or password")
