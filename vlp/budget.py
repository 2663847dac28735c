"""How long a training is, by what it may take in all, so that methods are compared at equal cost."""

from dataclasses import dataclass, fields

from vlp.config import StrictConfig


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

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' or '.join(given or names)}: set exactly one")
        if self.amount <= 0:
            raise ValueError(f"{self.measure} must be above 0, got {self.amount:g}")

    @property
    def measure(self) -> str:
        """Name of the measure that is set."""
        return next(field.name for field in fields(self) if getattr(self, field.name) is not None)

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
