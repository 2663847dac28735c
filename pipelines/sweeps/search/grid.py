"""Every point of a grid, in the order of the file."""

from dataclasses import dataclass
from typing import Literal

from pipelines.sweeps.samplers import Place, Space
from pipelines.sweeps.search.search import SEARCHES, Proposal, Search


@SEARCHES.register
@dataclass(frozen=True, kw_only=True)
class GridSearch(Search):
    """Tries every combination of the values; the last key of the space changes fastest."""

    name: Literal["grid"] = "grid"

    def check(self, space: Space, num_trials: int | None) -> None:
        for key, sampler in space.samplers.items():
            if sampler.name != "grid":
                raise ValueError(
                    f"space.{key}: search.name is grid, which tries every value of a list; write grid: [...] "
                    f"in place of {sampler.name}, or set search.name to random"
                )

    def total(self, space: Space, num_trials: int | None) -> int:
        count = space.num_points or 0
        return count if num_trials is None else min(num_trials, count)

    def to_come(self, space: Space, num_trials: int | None, *, settings: int, proposals: int) -> int:
        rest = (space.num_points or 0) - proposals
        return min(rest, super().to_come(space, num_trials, settings=settings, proposals=proposals))

    def propose(self, asked: Proposal) -> dict[str, Place] | None:
        return next(iter(asked.space.grid[asked.number :]), None)
