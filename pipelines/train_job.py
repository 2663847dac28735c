"""One training run, as it is sent to the workers."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.config import MachineConfig
from pipelines.journal import Journal
from pipelines.run_config import RunConfig

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

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, one folder each."""
        return self.output / CHECKPOINTS

    def is_due(self, done: int) -> bool:
        """Whether a checkpoint follows this many steps."""
        every = self.config.evaluation.every_steps
        return (
            done % self.machine.checkpoint_every_steps == 0
            or (every is not None and done % every == 0)
            or done == self.config.num_steps
        )
