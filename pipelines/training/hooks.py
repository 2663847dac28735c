"""What is done beside the steps of a training: every so many of them, before the first, after the last."""

from abc import ABC, abstractmethod

from torch import Tensor

from pipelines.checkpoints.checkpoint import TrainingState
from vlp.core.batch import Batch

Metrics = dict[str, Tensor | float]
"""Of one step on this worker, by name: () on the device each, or a number that was known without it."""


class Hook(ABC):
    """Does something after some steps; every worker has the same hooks, and calls them at the same steps."""

    def start(self, state: TrainingState) -> None:  # noqa: B027 - most have nothing to do
        """Before the first step of this process."""

    @abstractmethod
    def is_due(self, done: int) -> bool:
        """Whether it is called after this many steps of the run."""

    @abstractmethod
    def __call__(self, state: TrainingState, batch: Batch, metrics: Metrics) -> None:
        """After a step."""

    def stop(self, state: TrainingState) -> None:  # noqa: B027 - as `start`
        """After a step that is not the last one, where the run is asked to end."""

    def finish(self, state: TrainingState) -> None:  # noqa: B027 - as `start`
        """After the last step."""
