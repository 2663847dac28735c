"""The nodes of the cluster that a machine's settings name, or this machine alone; work on each of them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.config.machine import MachineConfig

TASK_SECONDS = 150
"""After which a node that does not answer is given up."""


@dataclass(frozen=True, eq=False)
class Node:
    """A node, as the cluster knows it."""

    name: str
    key: str
    """Of the cluster; differs where names do not."""
    resources: Mapping[str, float]


@dataclass(frozen=True)
class Task:
    """A function to call on a node."""

    node: Node
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    num_gpus: int = 0


class Nodes(ABC):
    """Where the work of a machine's settings runs."""

    most_at_once: int
    """Tasks that run on one node at the same time, at most."""

    @abstractmethod
    def described(self) -> str:
        """What it is."""

    @abstractmethod
    def token(self) -> str:
        """Whether others need a token to run code there."""

    @abstractmethod
    def all(self) -> list[Node]:
        """Every node that is there."""

    @abstractmethod
    def do(self, tasks: Sequence[Task]) -> list[Any]:
        """Do tasks at once; what each returns, or the error that it ended with."""


class ThisMachine(Nodes):
    """Settings that use no Ray."""

    most_at_once = 1

    def described(self) -> str:
        """That there is none."""
        return "none is used: machine.num_workers and machine.data_workers are 0"

    def token(self) -> str:
        """None without Ray."""
        return "none is needed without Ray"

    def all(self) -> list[Node]:
        """This one."""
        return [Node("this machine", "", {})]

    def do(self, tasks: Sequence[Task]) -> list[Any]:
        """One after another, in this process; errors are raised."""
        return [task.function(*task.arguments) for task in tasks]


class RayNodes(Nodes):
    """The nodes of the Ray cluster that this process has joined."""

    most_at_once = 2

    def __init__(self, address: str | None) -> None:
        self._address = address

    def described(self) -> str:
        """Its version, and where it is."""
        import ray

        where = f"joined at {self._address}" if self._address else "starts on this machine"
        return f"{ray.__version__} {where}"

    def token(self) -> str:
        """By Ray's environment, which the cluster has accepted."""
        if os.environ.get("RAY_AUTH_MODE", "token") == "token":
            return "the cluster takes this one"
        return "none is asked for: who reaches the ports of the cluster runs code there"

    def all(self) -> list[Node]:
        """Those that are alive."""
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        addresses = [node["NodeManagerAddress"] for node in alive]
        return [
            Node(
                address if addresses.count(address) == 1 else f"{address} ({node['NodeID'][:6]})",
                node["NodeID"],
                node["Resources"],
            )
            for address, node in zip(addresses, alive, strict=True)
        ]

    def do(self, tasks: Sequence[Task]) -> list[Any]:
        """Each pinned to its node, beside whatever runs there."""
        import ray
        from ray.exceptions import RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        begun = [
            ray.remote(num_cpus=0, num_gpus=task.num_gpus, max_retries=0)(task.function)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(task.node.key, soft=False))
            .remote(*task.arguments)
            for task in tasks
        ]
        ray.wait(begun, num_returns=len(begun), timeout=TASK_SECONDS)
        results: list[Any] = []
        for reference in begun:
            try:
                results.append(ray.get(reference, timeout=0))
            except RayError as error:
                results.append(getattr(error, "cause", None) or error)
                ray.cancel(reference, force=True)
        return results


def open_nodes(machine: MachineConfig) -> Nodes:
    """Join or start what the settings name; a UserError where that fails."""
    if not (machine.data_workers or machine.worker_counts.most):
        return ThisMachine()
    from pipelines.compute.cluster import connect

    connect(machine)
    return RayNodes(machine.ray_address or os.environ.get("RAY_ADDRESS"))
