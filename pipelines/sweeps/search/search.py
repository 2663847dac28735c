"""What a search is: a function from what was tried to what to try next, without a state of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pipelines.sweeps.samplers import Place, Space
from vlp.core.config import StrictConfig
from vlp.core.registry import Registry

SEARCHES = Registry()


class Tried(NamedTuple):
    """A point that was proposed, and what became of it."""

    point: Mapping[str, Place]
    scores: Sequence[float] | None
    """Of each metric, where it was trained to the end."""
    curve: Mapping[int, float]
    """Step -> the first metric, so far."""
    is_open: bool
    """Whether more will be known of it."""


class Proposal(NamedTuple):
    """What a search is asked with."""

    space: Space
    tried: Sequence[Tried]
    directions: Sequence[str]
    """`max` or `min`, of each metric."""
    number: int
    """Proposals before it, those included that came to what was there already."""
    seed: int
    """Of this proposal alone."""


@dataclass(frozen=True, kw_only=True)
class Search(ABC, StrictConfig):
    """Proposes points of a space."""

    name: str
    """Which way of searching it is."""
    learns: ClassVar[bool] = False
    """Whether what was tried changes what it proposes."""

    def check(self, space: Space, num_trials: int | None) -> None:
        """Raise a ValueError that names the key unless it can search the space."""
        for key, sampler in space.samplers.items():
            if sampler.name == "grid":
                raise ValueError(
                    f"space.{key}: all values of a grid are tried, and search.name is {self.name}; write "
                    "choice, or set search.name to grid"
                )
        if num_trials is None:
            raise ValueError(
                f"num_trials is missing: search.name {self.name} proposes as many as it is asked"
            )

    def total(self, space: Space, num_trials: int | None) -> int:
        """How many settings are proposed, at most."""
        assert num_trials is not None
        return num_trials

    def to_come(self, space: Space, num_trials: int | None, *, settings: int, proposals: int) -> int:
        """How many settings are still proposed, at most.

        Args:
            settings: those that are tried.
            proposals: those included that came to what was there already.
        """
        return max(0, self.total(space, num_trials) - settings)

    @abstractmethod
    def propose(self, asked: Proposal) -> dict[str, Place] | None:
        """The next point; None where there is none."""
