"""Random search (Bergstra and Bengio, JMLR 2012)."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from pipelines.sweeps.samplers import Place
from pipelines.sweeps.search.search import SEARCHES, Proposal, Search


@SEARCHES.register
@dataclass(frozen=True, kw_only=True)
class RandomSearch(Search):
    """Draws every setting by itself; what was tried changes nothing."""

    name: Literal["random"] = "random"

    def propose(self, asked: Proposal) -> dict[str, Place]:
        return asked.space.active(asked.space.draw(Random(asked.seed)))
