"""A small HTTP server of images whose failures are chosen, to rehearse downloads without the web."""

import hashlib
import socket
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from vlp.config import StrictConfig

FindImage = Callable[[str], bytes | None]
"""Name of an image, without the leading slash, to its bytes."""

MAGIC_NUMBERS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True, kw_only=True)
class FailureRates(StrictConfig):
    """Shares of the paths that fail in each way, each in [0, 1], together at most 1."""

    http_404: float = 0.0
    http_500: float = 0.0
    timeout: float = 0.0
    """No answer for timeout_seconds, then a closed connection."""
    truncated: float = 0.0
    """Half of the declared length, then a closed connection."""
    html: float = 0.0
    """A web page, with status 200."""
    wrong_content_type: float = 0.0
    """The image, declared as text/plain."""
    timeout_seconds: float = 30.0
    """How long a stalled request hangs, above 0."""

    def __post_init__(self) -> None:
        for kind, share in self.shares().items():
            if not 0 <= share <= 1:
                raise ValueError(f"{kind} must be in [0, 1], got {share}")
        total = sum(self.shares().values())
        if total > 1 + 1e-9:
            raise ValueError(f"the failure rates must sum to at most 1, got {total:g}")
        if self.timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be above 0, got {self.timeout_seconds}")

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


class ImageServer:
    """Context manager that serves a folder of images or the `image` column of a Parquet file.

    A folder's images are found by their relative names, row i of a Parquet file at /000000.jpg and so on.
    `url` has no trailing slash; port 0 picks a free one. `requests` counts requests by outcome: ok,
    not_found, or a failure's name. Raises OSError for a port in use, FileNotFoundError for a missing source
    and ValueError for a Parquet file without images.
    """

    def __init__(
        self, source: Path, *, host: str = "127.0.0.1", port: int = 0, failures: FailureRates | None = None
    ) -> None:
        find = _open_source(source)
        self.requests: Counter[str] = Counter()
        try:
            self._server = _Server((host, port), find, failures or FailureRates(), self.requests)
        except OSError as error:
            reason = f"cannot serve on {host}:{port} ({error.strerror})"
            raise OSError(error.errno, f"{reason}; choose another with serve.port=...") from None
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> "ImageServer":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # downloaders connect with hundreds of threads at once

    def __init__(
        self, address: tuple[str, int], find: FindImage, failures: FailureRates, requests: Counter[str]
    ) -> None:
        self.find, self.failures, self.requests = find, failures, requests
        self.is_closing = Event()
        self._lock = Lock()
        self._connections: set[Any] = set()
        super().__init__(address, _Handler)

    def count(self, outcome: str) -> None:
        with self._lock:
            self.requests[outcome] += 1

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of the server; anything else is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Stop listening, wake stalled requests and end the connections that clients keep alive."""
        self.is_closing.set()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        image = self.server.find(path.lstrip("/"))
        failure = failure_of(path, self.server.failures)
        self.server.count(failure or ("ok" if image is not None else "not_found"))
        if failure == "timeout":
            self.server.is_closing.wait(self.server.failures.timeout_seconds)
            self.close_connection = True
        elif failure == "http_500":
            self._answer(b"", status=HTTPStatus.INTERNAL_SERVER_ERROR)
        elif failure == "http_404" or image is None:
            self._answer(b"", status=HTTPStatus.NOT_FOUND)
        elif failure == "html":
            self._answer(b"<!doctype html><title>Moved</title><p>This image has moved.</p>", "text/html")
        elif failure == "wrong_content_type":
            self._answer(image, "text/plain")
        else:
            self._answer(image, _content_type(image), is_truncated=failure == "truncated")

    def _answer(
        self,
        body: bytes,
        content_type: str = "text/plain",
        *,
        status: HTTPStatus = HTTPStatus.OK,
        is_truncated: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if is_truncated else body)
        self.close_connection |= is_truncated

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: outcomes are counted instead."""


def _open_source(source: Path) -> FindImage:
    if source.is_dir():
        return _folder_images(source.resolve())
    if source.is_file():
        return _parquet_images(source)
    raise FileNotFoundError(f"no folder of images or Parquet file at {source}")


def _folder_images(folder: Path) -> FindImage:
    def find(name: str) -> bytes | None:
        # Names come from the network: overlong ones, null bytes and ways out of the folder find nothing.
        with suppress(OSError, ValueError):
            path = (folder / name).resolve()
            if path.is_relative_to(folder) and path.is_file():
                return path.read_bytes()
        return None

    return find


def _parquet_images(file: Path) -> FindImage:
    if "image" not in pq.read_schema(file).names:
        raise ValueError(f"{file} has no column named image")
    images = pq.read_table(file, columns=["image"], memory_map=True)["image"]
    rows = {f"{row:06d}.jpg": row for row in range(len(images))}

    def find(name: str) -> bytes | None:
        return images[rows[name]].as_py() if name in rows else None

    return find


def _content_type(image: bytes) -> str:
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next(
        (kind for magic, kind in MAGIC_NUMBERS if image.startswith(magic)), "application/octet-stream"
    )
