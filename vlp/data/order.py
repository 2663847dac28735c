"""Which samples make up which batch: a pure function of (seed, step), whatever the number of workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vlp.seeds import mix_seeds


@dataclass(frozen=True)
class Draw:
    """One use of a sample."""

    index: int
    epoch: int

    def rng(self, seed: int) -> np.random.Generator:
        """The randomness of this use: its crop and its caption."""
        return np.random.default_rng(mix_seeds(seed, self.epoch, self.index))


def rank_batches(
    *, seed: int, num_samples: int, batch_size: int, steps: range, rank: int, world_size: int
) -> Iterator[list[Draw]]:
    """One worker's part of the global batch of each step.

    A global batch is a slice of its epoch's permutation, a worker's part a slice of the batch; the few
    samples that do not fill a last batch wait for another epoch.

    Args:
        batch_size: samples of the global batch; a multiple of `world_size`.
    """
    steps_per_epoch = num_samples // batch_size
    share = batch_size // world_size
    for step in steps:
        epoch, position = divmod(step, steps_per_epoch)
        start = position * batch_size + rank * share
        indices = _permutation(seed, epoch, num_samples)[start : start + share]
        yield [Draw(int(index), epoch) for index in indices]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    return np.random.default_rng(mix_seeds(seed, epoch)).permutation(num_samples)
