"""Checkpoints of a run, each measured if that is configured."""

import ray.train

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.checkpoints.store import checkpoint_name
from pipelines.checkpoints.writer import CheckpointWriter
from pipelines.training.hooks import Hook, Metrics
from pipelines.training.job import TrainJob
from pipelines.training.validation import Validation
from vlp.core.batch import Batch
from vlp.core.distributed import is_main


class Saving(Hook):
    """Saves a checkpoint on rank 0, has the model measured, and tells Ray Train.

    Ray Train hears the metrics alone: its own record of checkpoints would refuse to go on where one is gone.
    """

    def __init__(self, job: TrainJob, writer: CheckpointWriter, validation: Validation) -> None:
        self.job, self.writer, self.validation = job, writer, validation

    def start(self, state: TrainingState) -> None:
        if self.job.config.num_steps == 0:
            self._save(state)  # the untrained network, to compare with

    def is_due(self, done: int) -> bool:
        return self.job.is_due(done)

    def __call__(self, state: TrainingState, batch: Batch, metrics: Metrics) -> None:
        self._save(state)

    def stop(self, state: TrainingState) -> None:
        if is_main() and not self.is_due(state.step):
            self.writer.save(state, {}, keep=self.validation.pending)

    def finish(self, state: TrainingState) -> None:
        self.writer.wait()
        self.validation.finish()
        if is_main():
            self.writer.make_room(state.step)

    def _save(self, state: TrainingState) -> None:
        is_measured = self.job.is_measured(state.step)
        metrics = self.validation.measure(state) if is_measured else {}
        if is_main():
            if is_measured:
                self.validation.due(checkpoint_name(state.step))
            self.writer.save(state, metrics, keep=self.validation.pending)
        if is_measured:  # a sweep compares trials by every report
            ray.train.report(metrics | {"step": state.step})


class Collecting(Hook):
    """Takes in what was measured beside the training meanwhile."""

    def __init__(self, validation: Validation, *, every: int) -> None:
        self.validation, self.every = validation, every

    def is_due(self, done: int) -> bool:
        return done % self.every == 0

    def __call__(self, state: TrainingState, batch: Batch, metrics: Metrics) -> None:
        self.validation.collect()
