"""How busy the machines of a run are, beside its curves."""

import psutil
import ray.train
import torch
import torch.distributed as dist

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.tracking.journal import Journal
from pipelines.training.hooks import Hook, Metrics
from vlp.core.batch import Batch
from vlp.core.distributed import is_main, world_size

NAMES = (
    "cpu_utilization_percentage",
    "system_memory_usage_percentage",
    "system_memory_usage_megabytes",
    "disk_usage_percentage",
    "network_receive_megabytes",
    "network_transmit_megabytes",
)
"""As MLflow calls them, which shows them in a place of their own."""


class MachineLoad(Hook):
    """The first worker of every node measures it, and rank 0 writes down what all found; a collective."""

    def __init__(self, journal: Journal, *, every: int) -> None:
        self.journal, self.every = journal, every
        psutil.cpu_percent()  # since here
        self.network = psutil.net_io_counters()

    def is_due(self, done: int) -> bool:
        return done % self.every == 0

    def __call__(self, state: TrainingState, batch: Batch, metrics: Metrics) -> None:
        context = ray.train.get_context()
        node = context.get_node_rank() if context.get_local_rank() == 0 else -1
        mine = torch.tensor([node, *self._measure()], dtype=torch.float64, device=batch.images.device)
        found = [torch.empty_like(mine) for _ in range(world_size())]
        if world_size() > 1:
            dist.all_gather(found, mine)
        else:
            found = [mine]
        if not is_main():
            return
        nodes = {int(row[0]): row[1:] for row in (tensor.tolist() for tensor in found) if row[0] >= 0}
        for number, values in nodes.items():
            place = f"system/node_{number}" if len(nodes) > 1 else "system"
            named = {f"{place}/{name}": value for name, value in zip(NAMES, values, strict=True)}
            self.journal.metrics(named, step=state.step)

    def _measure(self) -> list[float]:
        memory, network = psutil.virtual_memory(), psutil.net_io_counters()
        received = (network.bytes_recv - self.network.bytes_recv) / 1e6
        sent = (network.bytes_sent - self.network.bytes_sent) / 1e6
        disk = psutil.disk_usage("/").percent
        return [psutil.cpu_percent(), memory.percent, memory.used / 1e6, disk, received, sent]
