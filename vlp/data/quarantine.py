"""Samples that cannot be read: what stands in for them, and when there are too many."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vlp.core.seeds import mix_seeds
from vlp.data.order import Draw

TRIES_IN_SHARD, TRIES = 3, 12
JUDGED_FROM = 10_000
"""Samples: of the first few a small share is less than one."""
MAX_KEPT = 1_000
"""Unreadable samples that are remembered; all are counted."""


class Unreadable(NamedTuple):
    """A sample that could not be read."""

    shard: str
    key: str
    reason: str


class UnreadableDataError(ValueError):
    """More of the data is broken than the settings allow."""


@dataclass
class Quarantine:
    """What one worker could not read so far."""

    max_share: float
    num_samples: int = 0
    """Samples that were asked for."""
    samples: set[Unreadable] = field(default_factory=set)
    """The first `MAX_KEPT` of those that could not be read."""
    num_replaced: int = 0
    """How often another sample took the place of one of these."""

    def add(self, num_samples: int, unreadable: Sequence[Unreadable]) -> None:
        """Count the samples of a batch.

        Raises:
            UnreadableDataError: too many so far; the message names the last one.
        """
        self.num_samples += num_samples
        self.num_replaced += len(unreadable)
        for sample in unreadable:
            if len(self.samples) < MAX_KEPT:
                self.samples.add(sample)
        if unreadable and self.num_replaced > self.max_share * max(self.num_samples, JUDGED_FROM):
            last = unreadable[-1]
            raise UnreadableDataError(
                f"{self.num_replaced:,} of {self.num_samples:,} samples could not be read, more than "
                f"data.max_unreadable_share {self.max_share:g} allows; the last is {last.key} in "
                f"{last.shard}: {last.reason}"
            )


def substitutes(draw: Draw, *, seed: int, shard: range, folder: range) -> list[Draw]:
    """What to use in place of a sample that cannot be read: others of its shard, then others of its folder.

    They depend on the draw alone, so any number of workers replaces it by the same sample.
    """
    ranges = [shard] * TRIES_IN_SHARD + [folder] * (TRIES - TRIES_IN_SHARD)
    return [
        Draw(choices[mix_seeds(seed, draw.epoch, draw.index, i) % len(choices)], draw.epoch)
        for i, choices in enumerate(ranges)
    ]
