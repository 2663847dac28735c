"""The way to a server, which can be cut."""

import socket
from contextlib import suppress
from threading import Thread
from typing import Self


class Cable:
    """Context manager that takes connections at `address` to a server here, until it is unplugged."""

    def __init__(self, port: int) -> None:
        self.server = ("127.0.0.1", port)
        self._is_plugged = True
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        self._listener.close()

    def unplug(self) -> None:
        """Cut what is connected; whoever connects is cut at once."""
        self._is_plugged = False
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def plug(self) -> None:
        """Let through what comes."""
        self._is_plugged = True

    def _listen(self) -> None:
        with suppress(OSError):  # of the end
            while True:
                client, _ = self._listener.accept()
                if not self._is_plugged:
                    client.close()
                    continue
                server = socket.create_connection(self.server)
                self._connections += [client, server]
                for ends in ((client, server), (server, client)):
                    Thread(target=_carry, args=ends, daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
