"""A real PostgreSQL on this machine."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from tests.servers.ports import free_port
from tests.servers.processes import kill_tree

USER = "mlflow"


class Postgres:
    """A server with some databases; it can be killed and started again.

    Args:
        folder: of a short path, for its socket, and of the user that it runs as.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"postgresql+psycopg2://{USER}@127.0.0.1:{self.port}"
        self._as_who: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL}
        self._as_who["stderr"] = subprocess.DEVNULL
        if os.geteuid() == 0:  # as which it refuses to run
            shutil.chown(folder, "postgres")
            self._as_who["user"] = "postgres"
        command = [_program("initdb"), "-D", folder / "data", "-U", USER, "--auth=trust"]
        subprocess.run(command, check=True, **self._as_who)
        self.server: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Run it, and wait until it answers."""
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(self.folder)]
        command = [_program("postgres"), "-D", self.folder / "data", *settings, "-p", str(self.port)]
        self.server = subprocess.Popen(command, **self._as_who)
        while not self._answers():
            assert self.server.poll() is None, "PostgreSQL ended before it answered"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to it and all its processes, with no time to write anything."""
        if self.server is not None:
            kill_tree(psutil.Process(self.server.pid))
            self.server = None

    def create(self, names: Sequence[str]) -> None:
        """Make databases."""
        connection = self._connect()
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in names:
                cursor.execute(f"CREATE DATABASE {name}")
        connection.close()

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def _connect(self) -> Any:
        return psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres")


def _program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip("needs PostgreSQL's initdb and postgres")
    return program


@contextmanager
def database(names: Sequence[str]) -> Iterator[Postgres]:
    """A server with some databases; the test is skipped where there is none to run."""
    folder = Path(tempfile.mkdtemp(prefix="vlp-postgres-"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            server.create(names)
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)
