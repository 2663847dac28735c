"""HTTP over a connection to an address that was approved, on which no wait outlives its clock."""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Sequence
from threading import Lock

from pipelines.ingest.web_address import Origin

MAX_IDLE = 128  # connections; most hosts of a large list are asked once


class Clock:
    """How long a URL may still take: `timeout` seconds for each wait, `total` in all."""

    def __init__(self, *, timeout: float, total: float) -> None:
        self.timeout = timeout
        self.end = time.monotonic() + total

    def patience(self) -> float:
        """Seconds that the next wait may take; a TimeoutError if there are none left."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("took longer than total_timeout")
        return min(self.timeout, left)


class Connection:
    """One TCP or TLS connection, for one request at a time."""

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        self._clock: Clock | None = None

    @classmethod
    def open(
        cls, origin: Origin, addresses: Sequence[str], clock: Clock, tls: ssl.SSLContext
    ) -> "Connection":
        """Connect to the first address that answers; an OSError says why none did."""
        for address in addresses[:-1]:
            try:
                return cls(_connect(origin, address, clock, tls))
            except OSError:
                continue
        return cls(_connect(origin, addresses[-1], clock, tls))

    def ask(self, request: bytes, clock: Clock) -> http.client.HTTPResponse:
        """Send a request; the response with its headers read, its body not."""
        self._clock = clock
        self._socket.settimeout(clock.patience())
        self._socket.sendall(request)
        response = http.client.HTTPResponse(self, method="GET")  # pyright: ignore[reportArgumentType]
        response.begin()
        return response

    def makefile(self, mode: str) -> io.BufferedReader:
        """What the response reads from."""
        return io.BufferedReader(_Incoming(self), 2**16)

    def receive(self, buffer: memoryview) -> int:
        """Some more bytes; 0 at the end."""
        assert self._clock is not None
        self._socket.settimeout(self._clock.patience())
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class ConnectionPool:
    """Connections that were kept alive, for the next request to the same origin."""

    def __init__(self) -> None:
        self._idle: list[tuple[Origin, Connection]] = []
        self._lock = Lock()

    def take(self, origin: Origin) -> Connection | None:
        """The connection to an origin that was used last, or None."""
        with self._lock:
            for i in range(len(self._idle) - 1, -1, -1):
                if self._idle[i][0] == origin:
                    return self._idle.pop(i)[1]
        return None

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection whose response was read to its end, in place of the oldest one."""
        with self._lock:
            self._idle.append((origin, connection))
            oldest = self._idle.pop(0)[1] if len(self._idle) > MAX_IDLE else None
        if oldest is not None:
            oldest.close()

    def close(self) -> None:
        """Hang up all of them."""
        with self._lock:
            for _, connection in self._idle:
                connection.close()
            self._idle.clear()


class _Incoming(io.RawIOBase):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._connection.receive(buffer)


def _connect(origin: Origin, address: str, clock: Clock, tls: ssl.SSLContext) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.settimeout(clock.patience())
        raw.connect((address, origin.port))
        if origin.scheme == "https":
            raw.settimeout(clock.patience())
            return tls.wrap_socket(raw, server_hostname=origin.host)
    except BaseException:
        raw.close()
        raise
    return raw
