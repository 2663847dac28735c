"""Measuring a model while it is trained: on its training worker, which waits, or beside it in Ray tasks."""

from collections import deque
from pathlib import Path
from typing import Any

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.checkpoints.store import list_saved, record_metrics
from pipelines.evaluation.evaluate import bring_sets, measure_checkpoint, measure_model
from pipelines.training.job import TrainJob
from vlp.core.distributed import is_main
from vlp.evaluation.config import EvaluationConfig
from vlp.metrics.outcomes import NoOutcomesError
from vlp.shards.manifest import MANIFEST


class Validation:
    """What a training loop asks for; this one measures nothing."""

    def measure(self, state: TrainingState) -> dict[str, float]:
        """Metrics of the model of the moment, by `val/set/metric`; {} where they come later or never."""
        return {}

    def due(self, checkpoint: str) -> None:
        """A checkpoint of this name will be on disk, perhaps some time later."""

    def collect(self) -> None:
        """Record what was measured meanwhile; waits for nothing."""

    def finish(self) -> None:
        """Wait until every checkpoint is measured."""

    @property
    def pending(self) -> frozenset[str]:
        """Names of the checkpoints that are still to be measured, and have to stay until then."""
        return frozenset()


def open_validation(job: TrainJob) -> Validation:
    """How a run is measured while it trains; rank 0 alone does it."""
    if job.config.evaluation.every_steps is None or not is_main():
        return Validation()
    bring_sets(job.config.evaluation, job.machine)
    return BesideTraining(job) if job.machine.validation_workers else OnTrainingWorker(job)


class OnTrainingWorker(Validation):
    """Stops the training for as long as it measures."""

    def __init__(self, job: TrainJob) -> None:
        self.job = job

    def measure(self, state: TrainingState) -> dict[str, float]:
        try:
            scores = measure_model(state.model, self.job.config, self.job.config.evaluation)
        except NoOutcomesError as error:
            _record_failure(self.job, f"step {state.step}", str(error))
            return {}
        metrics = _named(scores)
        self.job.journal.metrics(metrics, step=state.step)
        return metrics


class BesideTraining(Validation):
    """Measures checkpoints in Ray tasks, of the size of a training worker, while the training goes on.

    The metrics are joined to the step of their checkpoint, in the journal and in the checkpoint's manifest.
    What was not measured when a run was interrupted is measured when it goes on.
    """

    def __init__(self, job: TrainJob) -> None:
        import ray

        machine = job.machine
        self.job = job
        self.task: Any = ray.remote(
            num_cpus=machine.cpus_per_worker,
            num_gpus=int(machine.use_gpu),
            scheduling_strategy="DEFAULT",  # not within the resources of the training workers
        )(_measure_checkpoint)
        saved = list_saved(job.checkpoints.folder)
        self.waiting = deque(one.name for one in saved if job.is_measured(one.step) and not one.metrics)
        self.running = deque[tuple[str, Any]]()

    def due(self, checkpoint: str) -> None:
        self.waiting.append(checkpoint)

    def collect(self) -> None:
        self._collect(seconds=0)

    def finish(self) -> None:
        if self.pending:
            names = ", ".join(sorted(self.pending))
            print(f"[{self.job.label}] waiting for the validation of {names}", flush=True)
        while self.pending:
            self._collect(seconds=None)

    @property
    def pending(self) -> frozenset[str]:
        return frozenset(self.waiting) | {name for name, _ in self.running}

    def _collect(self, *, seconds: float | None) -> None:
        """Start what there is room for, and record what is done, in the order of the steps."""
        import ray

        folder, room = self.job.checkpoints.folder, self.job.machine.validation_workers - len(self.running)
        while self.waiting and room > 0 and (folder / self.waiting[0] / MANIFEST).is_file():
            name = self.waiting.popleft()
            self.running.append((name, self.task.remote(folder / name, self.job.config.evaluation)))
            room -= 1
        while self.running and ray.wait([self.running[0][1]], timeout=seconds)[0]:
            self._record(*self.running.popleft())

    def _record(self, name: str, result: Any) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            scores, step = ray.get(result)
        except RayError as error:
            _record_failure(self.job, name, str(error).strip().splitlines()[-1])
            return
        metrics = _named(scores)
        self.job.journal.metrics(metrics, step=step)
        record_metrics(self.job.checkpoints.folder / name, metrics)


def _record_failure(job: TrainJob, name: str, reason: str) -> None:
    """A model that cannot be measured is no reason to stop its training."""
    print(f"[{job.label}] validation of {name} failed: {reason}", flush=True)
    job.journal.tags({f"failed_validation.{name}": reason})


def _measure_checkpoint(checkpoint: Path, evaluation: EvaluationConfig) -> tuple[dict[str, float], int]:
    """What a Ray task does."""
    measured = measure_checkpoint(checkpoint, evaluation)
    return measured.metrics, measured.step


def _named(scores: dict[str, float]) -> dict[str, float]:
    return {f"val/{key}": value for key, value in scores.items()}
