"""What a run multiplies by: chosen once for all of its workers, and kept with its checkpoints."""

from pathlib import Path

from pipelines.checkpoints.checkpoint import read_matmul
from pipelines.training.job import TrainJob
from vlp.core.matmul import Matmul
from vlp.training.cpu import fastest_matmul


def chosen_matmul(job: TrainJob, newest: Path | None) -> Matmul:
    """What the workers of a run multiply by: what is set, what the run went by so far, or what is fastest.

    Args:
        newest: the checkpoint that the run goes on from; None where it starts.
    """
    machine = job.machine
    if machine.matmul is not None:
        chosen = machine.matmul
    elif newest is not None:
        chosen = read_matmul(newest)
    elif machine.use_gpu or job.config.training.precision != "fp32":
        chosen = "pytorch"  # a GPU, or a CPU in bfloat16, has one way
    else:
        chosen = fastest_matmul()
    if not machine.use_gpu:
        job.journal.tags({"matmul": chosen})
    return chosen
