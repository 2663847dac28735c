"""A server of images from memory, at some ten microseconds per request: the clients are what is measured."""

import asyncio
import json
import multiprocessing
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, cast

STATUS, RESET = "/status", "/reset"


class Status(NamedTuple):
    """What was asked for since the last reset."""

    first_request: float
    """Seconds since 1970; 0 before the first request."""
    num_requests: int
    repeated: list[str]
    """Paths that were asked for more than once since the server was started."""


class ImageServer:
    """What a client sees of the server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def status(self) -> Status:
        """How the clients went on."""
        return Status(*json.loads(urllib.request.urlopen(self.url + STATUS).read()))

    def reset(self) -> None:
        """Forget the first request and the number of requests."""
        urllib.request.urlopen(self.url + RESET).read()


@contextmanager
def serve(images: Mapping[str, bytes]) -> Iterator[ImageServer]:
    """Serve images by path, such as `/7.jpg`, in a process of its own; `*` stands for all other paths."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.Process(target=_run, args=(dict(images), port), daemon=True)
    process.start()
    server = ImageServer(f"http://127.0.0.1:{port}")
    while True:
        try:
            server.reset()
            break
        except OSError:
            time.sleep(0.05)
    try:
        yield server
    finally:
        process.terminate()
        process.join()


class _State:
    def __init__(self, images: dict[str, bytes]) -> None:
        self.images = images
        self.asked = Counter[str]()
        self.first_request, self.num_requests = 0.0, 0

    def answer(self, path: str) -> bytes:
        if path == RESET:
            self.first_request, self.num_requests = 0.0, 0
            return b""
        if path == STATUS:
            repeated = [path for path, count in self.asked.items() if count > 1]
            return json.dumps([self.first_request, self.num_requests, repeated]).encode()
        self.asked[path] += 1
        self.num_requests += 1
        self.first_request = self.first_request or time.time()
        return self.images.get(path) or self.images["*"]


class _Protocol(asyncio.Protocol):
    def __init__(self, state: _State) -> None:
        self.state = state
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            request, _, self.received = self.received.partition(b"\r\n\r\n")
            answer = self.state.answer(request.split(b" ", 2)[1].decode())
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
            self.transport.write(head + answer)
            if b"connection: close" in request.lower():
                self.transport.close()


def _run(images: dict[str, bytes], port: int) -> None:
    async def listen() -> None:
        loop, state = asyncio.get_running_loop(), _State(images)
        server = await loop.create_server(lambda: _Protocol(state), "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    asyncio.run(listen())
