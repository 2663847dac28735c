"""How long a training is, by what it may take in all, so that methods are compared at equal cost."""

from dataclasses import dataclass
from typing import ClassVar

from vlp.core.config import StrictConfig


@dataclass(frozen=True, kw_only=True)
class BudgetConfig(StrictConfig):
    """What all steps may take together, by one of the measures; as many steps are done as it pays for."""

    samples: float | None = None
    """Pairs, each time that they are seen."""
    visible_tokens: float | None = None
    """Patches that the image encoder sees and, where there is a text encoder, places of a caption's tokens:
    `tokenizer.context_length` of each."""
    flops: float | None = None
    """Floating-point operations of the matrix products of the forward and the backward pass."""

    seconds: float | None = None
    """Time of the steps; what is done between them, such as checkpoints, is not counted."""
    seconds_per_step: float | None = None
    """The pace by which `seconds` are steps; None has it measured before the first one."""

    MEASURES: ClassVar = ("samples", "visible_tokens", "flops", "seconds")

    def __post_init__(self) -> None:
        given = [name for name in self.MEASURES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' or '.join(given or self.MEASURES)}: set exactly one")
        if self.amount <= 0:
            raise ValueError(f"{self.measure} must be above 0, got {self.amount:g}")
        if self.seconds_per_step is not None and (self.seconds is None or self.seconds_per_step <= 0):
            raise ValueError(
                f"seconds_per_step is {self.seconds_per_step:g}: it must be above 0, and is for a budget of "
                "seconds; leave it out"
            )

    @property
    def measure(self) -> str:
        """Name of the measure that is set."""
        return next(name for name in self.MEASURES if getattr(self, name) is not None)

    @property
    def needs_pace(self) -> bool:
        """Whether the number of steps is open until the pace was measured."""
        return self.seconds is not None and self.seconds_per_step is None

    @property
    def amount(self) -> float:
        return getattr(self, self.measure)

    def num_steps(self, cost: float) -> int:
        """Steps that it pays for.

        Args:
            cost: of one step, by its measure.

        Raises:
            ValueError: not even one.
        """
        if self.amount < cost:
            raise ValueError(
                f"budget.{self.measure} is {self.amount:g}, and one step takes {cost:g}; raise it, or lower "
                "training.batch_size"
            )
        return int(self.amount // cost)
