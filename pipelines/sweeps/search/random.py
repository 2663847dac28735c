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
        generator = Random(asked.seed)
        return {
            key: generator.random() * (sampler.num_values or 1)
            for key, sampler in asked.space.samplers.items()
        }
