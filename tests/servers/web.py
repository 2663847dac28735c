"""What the web servers of tests share."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

AnyServer = TypeVar("AnyServer", bound="WebServer")


class QuietHandler(BaseHTTPRequestHandler, ABC):
    """Prints nothing of what it is asked."""

    server: Any  # each handler names its own class

    @abstractmethod
    def get(self) -> None:
        """Answer a GET."""

    def do_GET(self) -> None:
        self.get()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """A whole answer; its length is said unless the headers say another."""
        self.begin(status, {"Content-Length": str(len(body))} | headers)
        self.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """The first part of an answer, up to its body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class WebServer(ThreadingHTTPServer):
    """On any free port of this machine, by all of its addresses: 127.0.0.0/8 are as many hosts."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[QuietHandler]) -> None:
        super().__init__(("0.0.0.0", 0), handler)
        self.is_closing = threading.Event()
        """Set at the end of the tests; what hangs until then ends."""

    @property
    def port(self) -> int:
        return self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up, or are killed."""


@contextmanager
def serving(server: AnyServer) -> Iterator[AnyServer]:
    """Answer meanwhile, in a thread."""
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.is_closing.set()
            server.shutdown()
