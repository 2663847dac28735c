"""Which masks each step of a run has."""

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.tracking.journal import Journal
from pipelines.training.calibration import Recalibration
from vlp.core.distributed import is_main
from vlp.masking.none import NoMask
from vlp.objectives import Objective
from vlp.text_masking.none import NoTextMask


class MaskChoice:
    """The run's masks, calibrated again where its settings want that; none in the tuning."""

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
        state.objective.mask = state.mask
        if state.step >= self.num_masked_steps:
            show_all(state.objective)


def show_all(objective: Objective) -> None:
    """Have a model see whole images and read whole captions in training, too."""
    objective.mask, objective.text_mask = NoMask(), NoTextMask()
