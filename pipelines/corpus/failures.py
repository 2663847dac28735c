"""The ways in which a rehearsed download can go wrong, and which paths go wrong in which way."""

import gzip
import hashlib
import socket
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from http import HTTPStatus
from typing import Annotated, Any

from vlp.core.config import Above, StrictConfig, Within

PRIVATE = "http://10.255.255.1/image.jpg"
DRIP_SECONDS = 0.1
Share = Annotated[float, Within(0, 1)]
Failure = Callable[[Any, bytes], None]
"""Answers a request, given the server's handler of it and the image that was asked for."""


@dataclass(frozen=True, kw_only=True)
class FailureRates(StrictConfig):
    """Shares of the paths that fail in each way, together at most 1."""

    http_404: Share = 0.0
    """Status 404: not found."""
    http_500: Share = 0.0
    """Status 500: the server failed."""
    timeout: Share = 0.0
    """No answer for timeout_seconds, then a closed connection."""
    truncated: Share = 0.0
    """Half of the declared length, then a closed connection."""
    html: Share = 0.0
    """A web page, with status 200."""
    wrong_content_type: Share = 0.0
    """The image, declared as text/plain."""
    http_429: Share = 0.0
    """Too many requests, with Retry-After: 1."""
    opt_out: Share = 0.0
    """The image, with X-Robots-Tag: noai."""
    redirect_loop: Share = 0.0
    """A redirect to the same path."""
    redirect_inside: Share = 0.0
    """A redirect to an address of a private network."""
    slow_drip: Share = 0.0
    """The image, one byte every tenth of a second."""
    endless: Share = 0.0
    """The image, then zeros without end and without a declared length."""
    gzip_bomb: Share = 0.0
    """A GiB of zeros, compressed to one MiB and declared so."""
    pixel_bomb: Share = 0.0
    """A PNG of a few bytes that declares 50,000 x 50,000 pixels."""
    garbage: Share = 0.0
    """Bytes that are no HTTP."""
    reset: Share = 0.0
    """A connection that is reset in place of an answer."""
    timeout_seconds: Annotated[float, Above(0)] = 30.0
    """How long a stalled request hangs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        total = sum(self.shares().values())
        if total > 1 + 1e-9:
            raise ValueError(f"the failure rates must sum to at most 1, got {total:g}")

    def shares(self) -> dict[str, float]:
        """Share of each kind of failure, by its name."""
        kinds = (field.name for field in fields(self) if field.name != "timeout_seconds")
        return {kind: getattr(self, kind) for kind in kinds}


def failure_of(path: str, rates: FailureRates) -> str | None:
    """The way in which every request for a path fails, or None: a pure function of the path's hash."""
    draw = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64
    for kind, share in rates.shares().items():
        if draw < share:
            return kind
        draw -= share
    return None


def fail(handler: Any, kind: str, image: bytes) -> None:
    """Answer a request in one of the ways of `FailureRates`; `handler` is the server's for this request."""
    FAILURES[kind](handler, image)


def _status(status: HTTPStatus, headers: Mapping[str, str]) -> Failure:
    return lambda handler, image: handler.answer(b"", status=status, headers=headers)


def _image(content_type: str, headers: Mapping[str, str]) -> Failure:
    return lambda handler, image: handler.answer(image, content_type, headers=headers)


def _timeout(handler: Any, image: bytes) -> None:
    handler.server.is_closing.wait(handler.server.failures.timeout_seconds)
    handler.close_connection = True


def _truncated(handler: Any, image: bytes) -> None:
    handler.answer(image[: len(image) // 2], "image/jpeg", headers={"Content-Length": str(len(image))})
    handler.close_connection = True


def _html(handler: Any, image: bytes) -> None:
    handler.answer(b"<!doctype html><title>Moved</title><p>This image has moved.</p>", "text/html")


def _redirect_loop(handler: Any, image: bytes) -> None:
    handler.answer(b"", status=HTTPStatus.FOUND, headers={"Location": handler.path})


def _slow_drip(handler: Any, image: bytes) -> None:
    handler.answer(b"", "image/jpeg", headers={"Content-Length": str(len(image))})
    for i in range(len(image)):
        if handler.server.is_closing.wait(DRIP_SECONDS):
            break
        handler.wfile.write(image[i : i + 1])
    handler.close_connection = True


def _endless(handler: Any, image: bytes) -> None:
    handler.send_response(HTTPStatus.OK)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(image)
    while not handler.server.is_closing.is_set():
        handler.wfile.write(bytes(2**16))


def _gzip_bomb(handler: Any, image: bytes) -> None:
    part = gzip.compress(bytes(2**24), mtime=0)
    handler.answer(part * 64, "image/jpeg", headers={"Content-Encoding": "gzip"})


def _pixel_bomb(handler: Any, image: bytes) -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    parts = [_png_chunk(b"IHDR", header), _png_chunk(b"IDAT", zlib.compress(bytes(99))), _png_chunk(b"IEND")]
    handler.answer(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "image/png")


def _png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _garbage(handler: Any, image: bytes) -> None:
    handler.wfile.write(bytes(range(256)) * 16)
    handler.close_connection = True


def _reset(handler: Any, image: bytes) -> None:
    without_goodbye = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, without_goodbye)
    handler.connection.close()
    handler.close_connection = True


FAILURES: dict[str, Failure] = {
    "http_404": _status(HTTPStatus.NOT_FOUND, {}),
    "http_500": _status(HTTPStatus.INTERNAL_SERVER_ERROR, {}),
    "timeout": _timeout,
    "truncated": _truncated,
    "html": _html,
    "wrong_content_type": _image("text/plain", {}),
    "http_429": _status(HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "1"}),
    "opt_out": _image("image/jpeg", {"X-Robots-Tag": "noai"}),
    "redirect_loop": _redirect_loop,
    "redirect_inside": _status(HTTPStatus.FOUND, {"Location": PRIVATE}),
    "slow_drip": _slow_drip,
    "endless": _endless,
    "gzip_bomb": _gzip_bomb,
    "pixel_bomb": _pixel_bomb,
    "garbage": _garbage,
    "reset": _reset,
}
