"""A Ray cluster of one node, started as a user would: `ray start --head`."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

from tests.servers.ports import free_port

TOKEN = "0123456789abcdef0123456789abcdef"
TOKEN_IN_USE = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


class Head(NamedTuple):
    """Where it is reached."""

    dashboard: str
    """For jobs."""
    address: str
    """To join it: `machine.ray_address`."""


@contextmanager
def ray_head(folder: Path, *, num_cpus: int = 2, token: str = "") -> Iterator[Head]:
    """A cluster with ports of its own, until the end of the context.

    Args:
        folder: where it works and writes its log.
        token: that it asks for; none if empty.
    """
    port, dashboard = free_port(), free_port()
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        f"--num-cpus={num_cpus}",
    ]
    command += [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--disable-usage-stats", "--include-log-monitor=False"]
    log = (folder / "log.txt").open("w")
    mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    environment = os.environ | mode
    head = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    deadline = time.monotonic() + 300
    while not answers(f"http://127.0.0.1:{dashboard}/api/version"):
        assert head.poll() is None, Path(log.name).read_text()
        assert time.monotonic() < deadline, Path(log.name).read_text()
        time.sleep(0.2)
    try:
        yield Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}")
    finally:
        head.terminate()
        head.wait(timeout=120)  # it ends its processes one after another


def answers(url: str) -> bool:
    """Whether a dashboard is there."""
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except HTTPError as error:
        return error.code == 401  # it asks for its token
    except OSError:
        return False
