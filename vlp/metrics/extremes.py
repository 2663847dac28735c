"""The items of a set that went best, and those that went worst."""

from typing import NamedTuple

from torch import Tensor

from vlp.metrics.outcomes import MatchRanks


class Extremes(NamedTuple):
    """Places of items in their set."""

    best: list[int]
    worst: list[int]


def extremes(outcomes: MatchRanks, count: int) -> Extremes:
    """The items whose match was found soonest, and latest; of each image one at most, the first of a tie.

    Args:
        count: of each, at most.
    """
    return Extremes(*(_of_images(outcomes, order, count) for order in (outcomes.ranks, -outcomes.ranks)))


def _of_images(outcomes: MatchRanks, order: Tensor, count: int) -> list[int]:
    images = range(len(outcomes)) if outcomes.images is None else outcomes.images.tolist()
    first_of: dict[int, int] = {}
    for item in order.argsort(stable=True).tolist():
        if len(first_of) == count:
            break
        first_of.setdefault(images[item], item)
    return list(first_of.values())
