"""What the numbers of a run suggest is wrong with it, said once while it trains."""

from collections import deque
from collections.abc import Iterator, Mapping

from vlp.run import RunConfig

DUPLICATES = 0.1
"""Share of a batch whose captions are also another pair's, from which the user is told."""
BAND, RECORDS = 0.01, 10
"""A loss is stuck that is this near to guessing, relatively, in so many records one after another."""


class Hints:
    """Looks at what is logged of a contrastive run."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._losses: deque[float] = deque(maxlen=RECORDS)
        self._given: set[str] = set()

    def look(self, step: int, values: Mapping[str, float]) -> dict[str, str]:
        """What is new to say after a step: name -> one line.

        Args:
            values: metrics of the step, by name.
        """
        found = dict(self._find(step, values)) if self.config.objective.encodes_text else {}
        new = {name: line for name, line in found.items() if name not in self._given}
        self._given |= new.keys()
        return new

    def _find(self, step: int, values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        batch_size, duplicates = self.config.training.batch_size, values["duplicate_captions"]
        if duplicates > DUPLICATES:
            yield (
                "duplicate_captions",
                f"{duplicates:.0%} of the captions in the batch of step {step} are also another pair's, and "
                "each counts as wrong for the other's image; remove duplicates from the data, or lower "
                "training.batch_size",
            )
        if self._is_stuck(step, values["loss"]):
            yield (
                "stuck_loss",
                f"the loss stays at {values['loss']:.3f}, which is ln({batch_size}), the loss of guessing; "
                "likely causes: optimizer.lr too high or too low for this batch size, captions that are not "
                f"of their images, or captions that many pairs share ({duplicates:.0%} of this batch)",
            )

    def _is_stuck(self, step: int, loss: float) -> bool:
        chance = self.config.objective.chance_loss(self.config.training.batch_size)
        if chance is None or step <= self.config.lr_schedule.warmup_steps:
            return False
        self._losses.append(loss)
        return len(self._losses) == RECORDS and all(abs(x - chance) <= BAND * chance for x in self._losses)
