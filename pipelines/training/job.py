"""One training run, as it is sent to the workers."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.checkpoints.store import CheckpointPlace, Retention
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import ResolvedRun
from vlp.core.matmul import Matmul
from vlp.run import RunConfig, validation_metric
from vlp.shards.storage.folder import Folder

CHECKPOINTS, STOP = "checkpoints", "stop"


class Part(NamedTuple):
    """A beginning of a run."""

    until: int | None = None
    """Step after which it ends, for now; None for the run's last."""
    kept: tuple[int, ...] = ()
    """Steps whose checkpoints stay, whatever the machine keeps: other runs begin from them."""


WHOLE = Part()


@dataclass(frozen=True)
class TrainJob:
    """A run, where it is done, and what is recorded of it."""

    run: ResolvedRun
    machine: MachineConfig
    output: Path
    """Folder of the run."""
    journal: Journal
    there: Folder | None = None
    """Where the run is published, and its checkpoints are copied to meanwhile; None if `output` is that."""
    journal_there: Folder | None = None
    """Where the journal is copied to; None if its folder is that."""
    recalibration_steps: tuple[int, ...] = ()
    """Before which steps the mask is calibrated again."""
    matmul: Matmul = "pytorch"
    """What its workers multiply by on a CPU."""
    part: Part = WHOLE
    """How much of the run is trained for now."""
    keeper: Any = None
    """Ray actor on the driver's node that writes what workers of other nodes record; None where all nodes see
    one folder."""

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.run.config

    @property
    def last_step(self) -> int:
        """After which the training ends."""
        return self.config.num_steps if self.part.until is None else self.part.until

    @property
    def stop_file(self) -> Path:
        """While it is there, the workers are asked to end."""
        return self.output / STOP

    @property
    def label(self) -> str:
        """Begins every line that is said of the run."""
        return self.run.label

    @property
    def checkpoints(self) -> CheckpointPlace:
        """Where its checkpoints lie; what the machine asks for stays, and what is tracked at the end."""
        mirror = self.there / CHECKPOINTS if self.there else None
        copy = partial(self.journal.copy_to, self.journal_there) if self.journal_there else None
        return CheckpointPlace(self.output / CHECKPOINTS, self._retention, self.label, mirror, copy)

    @property
    def _retention(self) -> Retention:
        settings, metric = self.machine.checkpoints, validation_metric(self.config)
        if settings.track == "all":
            return Retention(last=settings.keep, every_steps=1)
        is_best_tracked = settings.track == "best" and metric is not None
        return Retention(
            last=settings.keep,
            best=max(settings.keep_best, int(is_best_tracked)),
            metric=metric,
            every_steps=settings.keep_every_steps,
            steps=self.part.kept,
        )

    def is_due(self, done: int) -> bool:
        """Whether a checkpoint follows this many steps."""
        is_last = done == self.last_step
        return is_last or done % self.machine.checkpoints.every_steps == 0 or self.is_measured(done)

    def is_measured(self, done: int) -> bool:
        """Whether the model is measured after this many steps; the machine has no say in it."""
        every = self.config.evaluation.every_steps
        return every is not None and (done % every == 0 or done == self.last_step)
