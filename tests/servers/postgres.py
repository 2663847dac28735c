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

import psycopg2
import pytest

from tests.servers.ports import free_port

USER = "mlflow"


@contextmanager
def database(names: Sequence[str]) -> Iterator[str]:
    """The address of a server with some databases; the test is skipped where there is none to run."""
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or postgres is None:
        pytest.skip("needs PostgreSQL's initdb and postgres")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="vlp-postgres-"))  # of a short path, for its socket
    as_who: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.geteuid() == 0:  # as which it refuses to run
        shutil.chown(folder, "postgres")
        as_who["user"] = "postgres"
    try:
        subprocess.run([initdb, "-D", folder / "data", "-U", USER, "--auth=trust"], check=True, **as_who)
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(folder), "-p", str(port)]
        with subprocess.Popen([postgres, "-D", folder / "data", *settings], **as_who) as server:
            try:
                _create(server, port, names)
                yield f"postgresql+psycopg2://{USER}@127.0.0.1:{port}"
            finally:
                server.terminate()
    finally:
        shutil.rmtree(folder)


def _create(server: subprocess.Popen[Any], port: int, names: Sequence[str]) -> None:
    while True:
        assert server.poll() is None, "PostgreSQL ended before it answered"
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=port, user=USER, dbname="postgres")
            break
        except psycopg2.OperationalError:
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
