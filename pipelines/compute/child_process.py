"""A Python process that this one talks to, and whose death it survives."""

import importlib
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe
from typing import Any


class ChildProcess:
    """Runs the function `serve` of a module, which takes its end of the pipe.

    It ends when it is killed, or by itself when it finds the pipe closed: this process may die first.
    """

    def __init__(self, module: str) -> None:
        self._connection, other_end = Pipe()
        with other_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, module, str(other_end.fileno())],
                pass_fds=[other_end.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def send(self, message: Any) -> None:
        """Hand a message over; an EOFError if the process is dead."""
        try:
            self._connection.send(message)
        except ConnectionError as error:
            raise EOFError from error

    def receive(self) -> Any:
        """Wait for a message; an EOFError if the process is dead."""
        try:
            return self._connection.recv()
        except OSError as error:  # it died in the middle of a message
            raise EOFError from error

    def exit_code(self) -> int:
        """Wait for its end, once it is known to be dead; -N if signal N ended it."""
        return self._process.wait()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process
    importlib.import_module(sys.argv[1]).serve(Connection(int(sys.argv[2])))
