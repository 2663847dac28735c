"""A Ray cluster of several nodes, started as a user would: `ray start` on each; any of them can be killed."""

import os
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.servers.ports import free_port
from tests.servers.processes import kill_tree

STARTING_SECONDS = 240
RAY = str(Path(sys.executable).parent / "ray")


class RayNodes:
    """A head without a CPU of its own, and nodes beside it, all on this machine.

    Args:
        folder: where logs are written, and what the head has to remember.
        temporary: of a short path, for Ray's sockets.
    """

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder, self.temporary = folder, temporary
        self.port, self.dashboard = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.head: psutil.Process | None = None
        self.nodes: list[psutil.Process] = []

    def start_head(self) -> None:
        """Begin the cluster, or go on with it where its head has died."""
        # By which Ray takes its nodes on this machine for a head that runs.
        (self.temporary / "ray_current_cluster").unlink(missing_ok=True)
        log, url = self.folder / "head.log", f"http://127.0.0.1:{self.dashboard}/api/version"
        self.head = self._start(
            "head",
            f"--head --num-cpus=0 --port={self.port} --temp-dir={self.temporary}"
            f" --dashboard-host=127.0.0.1 --dashboard-port={self.dashboard}"
            f" --ray-client-server-port={free_port()} --include-log-monitor=False",
        )
        self._wait(lambda: _answers(url), self.head, log)

    def add_node(self, *, num_cpus: int = 1, within: Sequence[str] = ()) -> psutil.Process:
        """One more node; one after another, as two that start at once may take the same socket.

        Args:
            within: command that it is started by, such as one that gives it a disk of its own.
        """
        arguments = f"--address={self.address} --num-cpus={num_cpus}"
        name = f"node-{len(self.nodes)}"
        self.nodes.append(self._start(name, arguments, within))
        log = self.folder / f"{name}.log"
        self._wait(lambda: "Ray runtime started" in log.read_text(), self.nodes[-1], log)
        return self.nodes[-1]

    def stop(self) -> None:
        """Kill all that is left."""
        for process in (*self.nodes, *([self.head] if self.head else [])):
            kill_tree(process)

    def _start(self, name: str, arguments: str, within: Sequence[str] = ()) -> psutil.Process:
        command = [*within, RAY, "start", "--block", "--disable-usage-stats", *arguments.split()]
        # Several nodes of one machine: none may hand out the ports of another.
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        remembers = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self.folder / "gcs")}
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"} | remembers
        with (self.folder / f"{name}.log").open("a") as log:
            return psutil.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)

    def _wait(self, is_so: Callable[[], bool], process: psutil.Process, log: Path) -> None:
        deadline = time.monotonic() + STARTING_SECONDS
        while not is_so():
            assert process.is_running(), log.read_text()
            assert process.status() != psutil.STATUS_ZOMBIE, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
    return False
