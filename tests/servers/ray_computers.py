"""A Ray cluster of several computers, started as a user would: `ray start` on each; it asks for a token."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.servers.computers import VOLUME, Computer, Network
from tests.servers.ray_head import TOKEN_IN_USE, answers

PORT, DASHBOARD, OBJECTS = 6379, 8265, 200_000_000
STARTING_SECONDS = 240


class RayComputers:
    """A head without a CPU of its own, and nodes; each can lose its power, and come back.

    Args:
        network: that they are at.
        folder: where logs are written.
        environment: of all processes of Ray, and so of jobs and workers.
    """

    def __init__(self, network: Network, folder: Path, environment: Mapping[str, str]) -> None:
        self.network, self.folder = network, folder
        self.environment = TOKEN_IN_USE | dict(environment)
        self.volume = folder / "gcs"
        self.volume.mkdir()
        self.head = network.computer("head", volume=self.volume)
        self.nodes: list[Computer] = []

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted to."""
        return f"http://{self.head.address}:{DASHBOARD}"

    def start_head(self) -> None:
        """Begin the cluster."""
        words = f"--head --num-cpus=0 --port={PORT} --dashboard-host=0.0.0.0 --dashboard-port={DASHBOARD}"
        self._start(self.head, words, lambda log: answers(f"{self.dashboard}/api/version"))

    def restart_head(self) -> None:
        """Another computer by the address of the head, with its volume, as KubeRay starts one."""
        self.head = self.network.computer("head", self.head.address, volume=self.volume)
        self.start_head()

    def add_node(self) -> Computer:
        """One more computer, of one CPU."""
        node = self.network.computer(f"node{len(self.nodes)}")
        self.nodes.append(node)
        words = f"--address={self.head.address}:{PORT} --num-cpus=1"
        self._start(node, words, lambda log: "Ray runtime started" in log.read_text())
        return node

    def _start(self, computer: Computer, words: str, is_up: Callable[[Path], bool]) -> None:
        log = self.folder / f"{computer.name}.log"
        command = ["ray", "start", "--block", "--disable-usage-stats", f"--object-store-memory={OBJECTS}"]
        command += [f"--node-ip-address={computer.address}", *words.split()]
        remembers = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(VOLUME / "ray")}
        process = computer.run(command, log=log, environment=self.environment | remembers)
        deadline = time.monotonic() + STARTING_SECONDS
        while not is_up(log):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
