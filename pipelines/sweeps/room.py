"""How many trials a cluster has room for."""

from collections.abc import Mapping, Sequence

from pipelines.compute.cluster import REMEDIES, room_on_node
from pipelines.config.errors import ConfigError, UserError
from pipelines.config.machine import MachineConfig

DRIVER_CPUS = 0.1
"""Of a trial's own process, which only waits for its training workers."""


def check_trains_under_ray(machine: MachineConfig) -> None:
    """Raise a ConfigError where training would be in this process, which has place for one run."""
    if machine.worker_counts.most == 0:
        raise ConfigError(
            "machine.num_workers is 0, which trains in this process, and the trials of a sweep train under "
            "Ray, which can stop them; set machine.num_workers to at least 1"
        )


def trials_at_once(machine: MachineConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """Trials that nodes have room for at once, their own processes included.

    Args:
        nodes: CPU and GPU of each.

    Raises:
        UserError: not one; says what it needs and what there is.
    """
    if not _fits(1, machine.worker_counts.least, machine, nodes):
        raise UserError(_no_room(machine, nodes))
    trials = 1
    while _fits(trials + 1, machine.worker_counts.most, machine, nodes):
        trials += 1
    return trials


def _fits(trials: int, workers: int, machine: MachineConfig, nodes: Sequence[Mapping[str, float]]) -> bool:
    """Whether so many trials, each with so many workers, have room at once.

    A trial's process goes where no worker loses its place, as long as there is such a node.
    """
    free = [dict(node) for node in nodes]
    for _ in range(trials):
        hosts = [node for node in free if node.get("CPU", 0) >= DRIVER_CPUS]
        if not hosts:
            return False
        host = min(hosts, key=lambda node: _lost(machine, node))
        host["CPU"] = round(host["CPU"] - DRIVER_CPUS, 6)
    return sum(room_on_node(machine, node) for node in free) >= trials * workers


def _lost(machine: MachineConfig, node: Mapping[str, float]) -> int:
    """Workers that a node has no room for once a trial's process is on it."""
    left = {**node, "CPU": round(node["CPU"] - DRIVER_CPUS, 6)}
    return room_on_node(machine, node) - room_on_node(machine, left)


def _no_room(machine: MachineConfig, nodes: Sequence[Mapping[str, float]]) -> str:
    counts, cpus, gpus = machine.worker_counts, machine.cpus_per_worker, int(machine.use_gpu)
    room = sum(room_on_node(machine, node) for node in nodes)
    needed = f"{counts.least} x {cpus} CPUs" + (f" and {counts.least} x {gpus} GPUs" if gpus else "")
    sizes = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return (
        f"a trial needs {needed} for its workers (machine.num_workers {counts} x machine.cpus_per_worker), "
        f"each worker on one node, and {DRIVER_CPUS} CPUs for itself, and the cluster's nodes ({sizes}) have "
        f"room for {room} workers; {REMEDIES['GPU' if gpus else 'CPU']}"
    )
