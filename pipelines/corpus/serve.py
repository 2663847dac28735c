"""A small HTTP server of images whose failures are chosen, to rehearse downloads without the web."""

import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from pipelines.corpus.failures import FailureRates, fail, failure_of

FindImage = Callable[[str], bytes | None]
"""Name of an image, without the leading slash, to its bytes."""

MAGIC_NUMBERS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


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
        """A client that hangs up is not an error of the server; anything else is printed."""
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
        if failure is not None:
            fail(self, failure, image or b"")
        elif image is None:
            self.answer(b"", status=HTTPStatus.NOT_FOUND)
        else:
            self.answer(image, _content_type(image))

    def answer(
        self,
        body: bytes,
        content_type: str = "text/plain",
        *,
        status: HTTPStatus = HTTPStatus.OK,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """A whole answer; `headers` are sent beside its type and length, or in place of them."""
        standard = {"Content-Type": content_type, "Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in (standard | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

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
