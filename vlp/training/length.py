"""How long a training is, by what it may take in all, so that methods are compared at equal cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from vlp.core.config import Above, AtLeast, StrictConfig


@dataclass(frozen=True, kw_only=True)
class LengthConfig(StrictConfig):
    """What all steps may take together, by one of the measures; as many steps are done as it pays for."""

    steps: Annotated[int, AtLeast(0)] | None = None
    """Optimizer steps; 0 keeps the untrained network, to compare with."""
    samples: Annotated[float, Above(0)] | None = None
    """Pairs, each time that they are seen."""
    visible_tokens: Annotated[float, Above(0)] | None = None
    """Patches that the image encoder sees and, where there is a text encoder, places of a caption's tokens:
    `tokenizer.context_length` of each. What pads images that show fewer patches than others is free."""
    visible_patches: Annotated[float, Above(0)] | None = None
    """Patches of an image that a mask shows in the mean, for `visible_tokens`; None has it measured before
    the first step where images show unequal numbers."""
    flops: Annotated[float, Above(0)] | None = None
    """Floating-point operations of the matrix products of the forward and the backward pass."""

    seconds: Annotated[float, Above(0)] | None = None
    """Time of the steps; what is done between them, such as checkpoints, is not counted."""
    seconds_per_step: Annotated[float, Above(0)] | None = None
    """The pace by which `seconds` are steps; None has it measured before the first one."""

    MEASURES: ClassVar = ("steps", "samples", "visible_tokens", "flops", "seconds")
    MEASURED: ClassVar = {"visible_patches": "visible_tokens", "seconds_per_step": "seconds"}
    """What is measured of a run, and the measure that it is for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in self.MEASURES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' or '.join(given or self.MEASURES)}: set exactly one")
        for name, measure in self.MEASURED.items():
            value = getattr(self, name)
            if value is not None and getattr(self, measure) is None:
                raise ValueError(f"{name} is {value:g}, and is for a length of {measure}; leave it out")

    @classmethod
    def replaced(cls, given: Mapping[str, Any]) -> frozenset[str]:
        named = {name for name in cls.MEASURES if given.get(name) is not None}
        if not named:
            return frozenset()
        unused = {name for name, measure in cls.MEASURED.items() if measure not in named}
        return (frozenset(cls.MEASURES) - named) | unused

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
        """What may be taken, by the measure."""
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
                f"length.{self.measure} is {self.amount:g}, and one step takes {cost:g}; raise it, or lower "
                "training.batch_size"
            )
        return int(self.amount // cost)
