"""One training run, as it is sent to the workers."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.checkpoints.store import CheckpointPlace, Retention
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from vlp.run import RunConfig, validation_metric
from vlp.shards.storage.folder import Folder

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainJob:
    """Settings whose paths are absolute, and whose mask is calibrated."""

    config: RunConfig
    machine: MachineConfig
    output: Path
    """Folder of the run."""
    journal: Journal
    recalibration_steps: tuple[int, ...] = ()
    """Before which steps the threshold of the mask is searched again."""
    mirror: Folder | None = None
    """Where the checkpoints are copied to."""

    @property
    def label(self) -> str:
        """Begins every line that is said of the run."""
        return f"pretrain {self.config.name}"

    @property
    def checkpoints(self) -> CheckpointPlace:
        """Where its checkpoints lie; what the machine asks for stays, and what is tracked at the end."""
        return CheckpointPlace(self.output / CHECKPOINTS, self._retention, self.label, self.mirror)

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
        )

    def is_due(self, done: int) -> bool:
        """Whether a checkpoint follows this many steps."""
        every = self.config.evaluation.every_steps
        return (
            done % self.machine.checkpoints.every_steps == 0
            or (every is not None and done % every == 0)
            or done == self.config.num_steps
        )
