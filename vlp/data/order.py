"""Which samples make up which batch: a pure function of (seed, step), whatever the number of workers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vlp.core.seeds import mix_seeds
from vlp.data.permutation import permute


@dataclass(frozen=True)
class Draw:
    """One use of a sample."""

    index: int
    epoch: int

    def rng(self, seed: int) -> np.random.Generator:
        """The randomness of this use: its crop and its caption."""
        return np.random.default_rng(mix_seeds(seed, self.epoch, self.index))


class Shuffle(ABC):
    """The order of the samples of one set in one epoch."""

    num_samples: int

    @abstractmethod
    def indices(self, positions: np.ndarray, *, seed: int) -> np.ndarray:
        """The samples at some positions of the epoch that a seed stands for: (B,) int64 -> (B,) int64."""


class FullShuffle(Shuffle):
    """Every order of the samples is equally likely; any shard may be needed at any time."""

    def __init__(self, shard_sizes: Sequence[int]) -> None:
        self.num_samples = sum(shard_sizes)

    def indices(self, positions: np.ndarray, *, seed: int) -> np.ndarray:
        return permute(positions, self.num_samples, seed=seed)


class BlockShuffle(Shuffle):
    """Shards in random order, and the samples of every `window` of them in random order."""

    def __init__(self, shard_sizes: Sequence[int], *, window: int) -> None:
        self.num_samples = sum(shard_sizes)
        self.sizes = np.array(shard_sizes, dtype=np.int64)
        self.first = np.cumsum(self.sizes) - self.sizes
        self.window = window
        self._epoch = lru_cache(maxsize=2)(self._shuffle_shards)

    def indices(self, positions: np.ndarray, *, seed: int) -> np.ndarray:
        shards, ends = self._epoch(seed)
        bounds = np.append(0, ends[self.window - 1 :: self.window])
        blocks = np.searchsorted(bounds, positions, side="right") - 1
        shuffled = np.empty_like(positions)
        for block in np.unique(blocks):
            start = bounds[block]
            stop = bounds[block + 1] if block + 1 < len(bounds) else ends[-1]
            is_here = blocks == block
            here = permute(positions[is_here] - start, int(stop - start), seed=mix_seeds(seed, int(block)))
            shuffled[is_here] = start + here
        place = np.searchsorted(ends, shuffled, side="right")
        rows = shuffled - (ends[place] - self.sizes[shards[place]])
        return self.first[shards[place]] + rows

    def _shuffle_shards(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards in the order of one epoch, and after how many samples each ends."""
        shards = permute(np.arange(len(self.sizes)), len(self.sizes), seed=seed)
        return shards, np.cumsum(self.sizes[shards])


class Order:
    """The samples of every batch of a run, drawn from one or several sets.

    Each set is gone through at its own pace, epoch after epoch. A batch has its share of every set, as
    nearly as whole samples allow: after any number of steps a set is at most one sample from its share.

    Args:
        sets: how each is shuffled; their samples are numbered one after another.
        shares: of each set in every batch; they sum to 1.
        batch_size: samples of the global batch.
    """

    def __init__(
        self, sets: Sequence[Shuffle], shares: Sequence[float], *, seed: int, batch_size: int
    ) -> None:
        if min(shares) * batch_size < 1:
            raise ValueError(f"a share of {min(shares):g} is less than one sample of a batch of {batch_size}")
        self.sets = sets
        self.seed = seed
        self.batch_size = batch_size
        self._bounds = np.append(np.cumsum(shares)[:-1], 1.0)
        self._first = np.cumsum([0, *(shuffle.num_samples for shuffle in sets)])

    def draws(self, step: int, slots: range) -> list[Draw]:
        """What stands in some slots of the batch of a step."""
        before, after = self._drawn(step), self._drawn(step + 1)
        ends = np.cumsum(after - before)
        # Mixed, so that every worker's part of the batch has samples of every set.
        places = permute(np.arange(slots.start, slots.stop), self.batch_size, seed=mix_seeds(self.seed, step))
        chosen = np.searchsorted(ends, places, side="right")
        positions = before[chosen] + places - (ends - after + before)[chosen]
        indices, epochs = np.empty_like(places), np.empty_like(places)
        for k in range(len(self.sets)):
            is_here = chosen == k
            indices[is_here], epochs[is_here] = self._samples(k, positions[is_here])
        return [Draw(*draw) for draw in zip(indices.tolist(), epochs.tolist(), strict=True)]

    def _drawn(self, step: int) -> np.ndarray:
        """Samples of each set in the batches before a step."""
        bounds = np.floor(step * self.batch_size * self._bounds).astype(np.int64)
        return np.diff(bounds, prepend=0)

    def _samples(self, k: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The samples of one set at positions of its endless sequence of epochs, and the epochs."""
        shuffle, count = self.sets[k], self.sets[k].num_samples
        # Alone in its batches, a set has epochs of whole batches: the samples left over wait for another one.
        count -= count % self.batch_size if len(self.sets) == 1 else 0
        epochs, places = np.divmod(positions, count)
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            is_here = epochs == epoch
            indices[is_here] = shuffle.indices(places[is_here], seed=mix_seeds(self.seed, int(epoch), k))
        return self._first[k] + indices, epochs


def rank_batches(order: Order, *, steps: range, rank: int, world_size: int) -> Iterator[list[Draw]]:
    """One worker's part of the global batch of each step; the batch size is a multiple of `world_size`."""
    share = order.batch_size // world_size
    for step in steps:
        yield order.draws(step, range(rank * share, (rank + 1) * share))
