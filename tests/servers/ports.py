"""Ports that nothing else of this machine uses."""

import random
import socket
from contextlib import suppress

BELOW_WHAT_LINUX_GIVES = range(20_000, 32_768)
"""Neither a connection nor a server that asks for any port is given one of these."""


def free_port() -> int:
    """A port of 127.0.0.1 that is free, and stays so unless another call draws it."""
    while True:
        port = random.SystemRandom().choice(BELOW_WHAT_LINUX_GIVES)
        with suppress(OSError), socket.socket() as server:
            server.bind(("127.0.0.1", port))
            return port
