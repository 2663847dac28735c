"""Workers that do not see the driver's folders: their records go there, and its stop file is asked for."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.checkpoints.store import list_saved
from pipelines.tracking.sent import Keeper, SentJournal, answered
from pipelines.training.job import TrainJob


@dataclass(frozen=True)
class FileThere:
    """A file on the driver's node, of which is known what was so when it was last asked."""

    file: Path
    keeper: Any
    asked: list[Any]
    """What was asked and is not answered yet; one at most."""

    def exists(self) -> bool:
        """Whether it was there; asks again, and waits for no answer."""
        import ray

        if self.asked and ray.wait(self.asked, timeout=0)[0]:
            return bool(ray.get(self.asked.pop()))
        if not self.asked:
            self.asked.append(self.keeper.exists.remote(self.file))
        return False


def kept_here(job: TrainJob) -> TrainJob:
    """The job with a keeper on this node, for workers of others, where those share no folder with it."""
    if job.journal_there is None or not job.machine.worker_counts.most:
        return job
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    keeper: Any = ray.remote(num_cpus=0)(Keeper)
    return replace(job, keeper=keeper.options(scheduling_strategy=here).remote(job.journal))


def on_this_node(job: TrainJob) -> TrainJob:
    """The job for a worker, which may be on another node than the driver."""
    if job.keeper is None:
        return job
    return replace(job, journal=SentJournal(job.journal.folder, job.keeper))


def drop_unrecorded(job: TrainJob) -> None:
    """Delete checkpoints of this node whose steps the driver's record lacks, which was lost with its node."""
    if job.keeper is None:
        return
    recorded = answered(job.keeper.last_step.remote())
    for one in list_saved(job.checkpoints.folder):
        if one.step - one.step % job.machine.log_every_steps > recorded:
            shutil.rmtree(job.checkpoints.folder / one.name)


def stop_file_of(job: TrainJob) -> Path | FileThere:
    """What asks a worker to end."""
    return job.stop_file if job.keeper is None else FileThere(job.stop_file, job.keeper, [])


def delivered(job: TrainJob) -> None:
    """Wait for what a worker has sent.

    Raises:
        OSError: it could not be written.
    """
    if job.keeper is not None:
        answered(job.keeper.check.remote())
