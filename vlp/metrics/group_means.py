"""Means over several sets, each with what it is over and what it lacks."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean
from typing import NamedTuple

from vlp.metrics.intervals import Interval


class GroupMean(NamedTuple):
    """The mean of one number over the sets of a group that have it."""

    value: float
    low: float
    high: float
    over: Sequence[str]
    """Sets that have the number."""
    missing: Sequence[str]
    """Sets of the group that have it not, of which the mean says nothing."""


def group_means(
    metrics: Mapping[str, float],
    intervals: Mapping[str, Interval],
    *,
    groups: Mapping[str, Mapping[str, str]],
) -> dict[str, GroupMean]:
    """Of every group and every way in which its sets were measured: by `group/protocol`.

    Args:
        metrics: by `set/protocol/number`.
        intervals: of the metrics.
        groups: group -> set -> the number that counts of it, as `acc1`.
    """
    found = {}
    for group, numbers in groups.items():
        for protocol in _protocols(metrics, numbers):
            keys = {name: f"{name}/{protocol}/{number}" for name, number in numbers.items()}
            over = [name for name, key in keys.items() if key in metrics]
            value = mean(metrics[keys[name]] for name in over)
            low, high = _ends([(metrics[keys[name]], intervals[keys[name]]) for name in over])
            missing = [name for name in numbers if name not in over]
            found[f"{group}/{protocol}"] = GroupMean(value, value - low, value + high, over, missing)
    return found


def _protocols(metrics: Mapping[str, float], numbers: Mapping[str, str]) -> list[str]:
    """The protocols by which any set of a group has its number."""
    parts = (key.split("/") for key in metrics)
    return list(dict.fromkeys("/".join(p[1:-1]) for p in parts if numbers.get(p[0]) == p[-1]))


def _ends(numbers: Sequence[tuple[float, Interval]]) -> tuple[float, float]:
    """How far the ends of the interval lie below and above the mean.

    By the recovery of variances from intervals (Zou and Donner, 2008), as sets are independent: so exact
    intervals count too, which no draws could give.
    """
    below = sqrt(sum((value - interval.low) ** 2 for value, interval in numbers)) / len(numbers)
    above = sqrt(sum((interval.high - value) ** 2 for value, interval in numbers)) / len(numbers)
    return below, above
