"""Which mask each step of a run has."""

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.tracking.journal import Journal
from pipelines.training.calibration import Recalibration
from vlp.core.distributed import is_main
from vlp.masking.none import NoMask


class MaskChoice:
    """The run's mask, calibrated again where its settings want that; none in the tuning."""

    def __init__(self, recalibration: Recalibration, journal: Journal, *, num_masked_steps: int) -> None:
        self.recalibration, self.journal = recalibration, journal
        self.num_masked_steps = num_masked_steps

    def is_due(self, step: int) -> bool:
        """Whether the mask changes before this step."""
        return step in self.recalibration.steps or step == self.num_masked_steps

    def __call__(self, state: TrainingState) -> None:
        """Give the model the mask of the next step; a collective."""
        if state.step in self.recalibration.steps:
            state.mask, metrics = self.recalibration.search(state.objective, state.mask, state.step)
            if is_main():
                self.journal.metrics(metrics, step=state.step)
        is_tuning = state.step >= self.num_masked_steps
        state.objective.mask = NoMask() if is_tuning else state.mask
