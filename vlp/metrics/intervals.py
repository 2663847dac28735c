"""How sure numbers about items are: intervals that hold 95 % of what other images would have given.

All intervals of the project come from here. Images are drawn with replacement, and with an image all items
that come from it: captions of one image are not independent. Shares of fewer than 300 images, and those of
items that are all right or all wrong, whose draws are all alike, have the exact binomial interval instead.
Draws are a function of the number of images alone, so two models that are measured on the same items are
compared on the same draws.

Where a method was trained by several seeds, these are the outer level: its numbers are means over the seeds,
and an interval holds over other seeds too. Three seeds drawn with replacement would say too little of others:
their mean lies outside of the three in a quarter of all cases. What other seeds would have given has
therefore Student's distribution, of as many degrees of freedom as there are seeds but one, about the mean.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import comb
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from vlp.metrics.outcomes import Outcomes
from vlp.metrics.statistics import Statistic

CONFIDENCE = 0.95
NUM_DRAWS = 1000
SEED = 0
EXACT_BELOW = 300
DRAWS_OF_SEEDS = 64  # for every draw of images: Student's tails need many
CHUNK_SIZE = 1 << 22  # counts of items at once: 32 MiB


class Interval(NamedTuple):
    """Where a number may lie."""

    low: float
    high: float


class Difference(NamedTuple):
    """By how much a number differs from that of another model on the same items."""

    value: float
    low: float
    high: float

    @property
    def stands_out(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


class SeedMean(NamedTuple):
    """The mean of a number over the seeds that a method was trained by."""

    value: float
    low: float
    high: float
    spread: float
    """Standard deviation over the seeds; 0 of one."""


def intervals(outcomes: Outcomes) -> dict[str, Interval]:
    """Of every number about the items; the names are those of `metrics`."""
    numbers = outcomes.statistics()
    exact = {key: _exact(statistic, outcomes) for key, statistic in numbers.items()}
    others = [key for key, found in exact.items() if found is None]
    drawn = draws(outcomes) if others else {}
    return {key: found or _percentiles(drawn[key]) for key, found in exact.items()}


def named_intervals(outcomes: Mapping[str, Outcomes]) -> dict[str, Interval]:
    """Those of outcomes that have names: `knn` with `acc1` gives `knn/acc1`."""
    return {f"{name}/{key}": value for name, one in outcomes.items() for key, value in intervals(one).items()}


def differences(ours: Outcomes, others: Outcomes) -> dict[str, Difference]:
    """What is gained over another model, of every number that both have; by the paired bootstrap.

    Raises:
        ValueError: they are not about the same items.
    """
    values, drawn = _gained(ours, others)
    return {key: Difference(value, *_percentiles(drawn[key])) for key, value in values.items()}


def named_seed_means(runs: Sequence[Mapping[str, Outcomes]]) -> dict[str, SeedMean]:
    """Means over the seeds of a method, of outcomes that have names."""
    return {
        f"{name}/{key}": value
        for name in runs[0]
        for key, value in seed_means([run[name] for run in runs]).items()
    }


def named_seed_differences(
    ours: Sequence[Mapping[str, Outcomes]], others: Sequence[Mapping[str, Outcomes]]
) -> dict[str, Difference]:
    """Those of methods, of the names that both have, each trained by the same seeds."""
    return {
        f"{name}/{key}": value
        for name in ours[0]
        if name in others[0]
        for key, value in seed_differences([run[name] for run in ours], [run[name] for run in others]).items()
    }


def seed_means(runs: Sequence[Outcomes]) -> dict[str, SeedMean]:
    """Of every number about the same items, the mean over runs of one method by other seeds."""
    ends, values = intervals(runs[0]), _by_key(run.metrics() for run in runs)
    if len(runs) == 1:
        return {key: SeedMean(value.item(), *ends[key], 0.0) for key, value in values.items()}
    drawn = {key: of_runs.mean(dim=0) for key, of_runs in _by_key(map(draws, runs)).items()}
    numbers, found = runs[0].statistics(), {}
    for key, of_seeds in values.items():
        low, high = _percentiles(_of_other_seeds(drawn[key], of_seeds))
        if numbers[key].is_share:
            low, high = max(low, 0.0), min(high, 1.0)
        if low == high:  # all items are right, or all wrong, by every seed
            low, high = ends[key]
        found[key] = SeedMean(of_seeds.mean().item(), low, high, of_seeds.std().item())
    return found


def seed_differences(ours: Sequence[Outcomes], others: Sequence[Outcomes]) -> dict[str, Difference]:
    """What a method gains over another one on the same items, trained by the same seeds; paired by both.

    Raises:
        ValueError: they are not about the same items, or not of as many seeds.
    """
    pairs = list(zip(ours, others, strict=True))
    if len(pairs) == 1:
        return differences(*pairs[0])
    gained = [_gained(*pair) for pair in pairs]
    values, drawn = _by_key(one for one, _ in gained), _by_key(one for _, one in gained)
    return {
        key: Difference(
            of_seeds.mean().item(), *_percentiles(_of_other_seeds(drawn[key].mean(dim=0), of_seeds))
        )
        for key, of_seeds in values.items()
    }


def _gained(ours: Outcomes, others: Outcomes) -> tuple[dict[str, float], dict[str, Tensor]]:
    """What every number that both have gains over another model: of the items, and for other images."""
    if len(ours) != len(others) or not torch.equal(_images(ours), _images(others)):
        raise ValueError(f"outcomes of {len(ours)} items cannot be paired with those of {len(others)} others")
    values, of_others = ours.metrics(), others.metrics()
    drawn, drawn_of_others = draws(ours), draws(others)
    keys = [key for key in values if key in of_others]
    gained = {key: values[key] - of_others[key] for key in keys}
    return gained, {key: drawn[key] - drawn_of_others[key] for key in keys}


def _of_other_seeds(drawn: Tensor, values: Tensor) -> Tensor:
    """What the mean over seeds comes to for other images and other seeds.

    Args:
        drawn: (R,) float64, for other images.
        values: (S,) float64, by each of the seeds.
    """
    generator, freedom = Generator().manual_seed(SEED), len(values) - 1
    size = (len(drawn) * DRAWS_OF_SEEDS,)
    normal = torch.randn(freedom + 1, *size, generator=generator, dtype=torch.float64)
    student = normal[0] / normal[1:].square().mean(dim=0).sqrt()
    return drawn.repeat(DRAWS_OF_SEEDS) + student * values.std() / len(values) ** 0.5


def _by_key(runs: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Numbers of several runs, or draws of them, along a first dimension: of the names that all have."""
    found = list(runs)
    keys = [key for key in found[0] if all(key in run for run in found)]
    values = {key: [torch.as_tensor(run[key], dtype=torch.float64) for run in found] for key in keys}
    return {key: torch.stack(of_runs) for key, of_runs in values.items()}


def draws(outcomes: Outcomes) -> dict[str, Tensor]:
    """What every number comes to for other images: (NUM_DRAWS,) float64 each."""
    numbers = outcomes.statistics()
    found = [
        {key: statistic(counts) for key, statistic in numbers.items()} for counts in _item_counts(outcomes)
    ]
    return {key: torch.cat([part[key] for part in found]) for key in numbers}


def exact_interval(num_right: int, num_items: int) -> Interval:
    """Clopper and Pearson's, of a share of independent items; all values that a two-sided test allows."""
    tail = (1 - CONFIDENCE) / 2
    if num_right == 0:
        return Interval(0.0, 1 - tail ** (1 / num_items))
    if num_right == num_items:
        return Interval(tail ** (1 / num_items), 1.0)
    low = _root(lambda p: _at_least(num_right, num_items, p) - tail)
    high = _root(lambda p: _at_least(num_right + 1, num_items, p) - (1 - tail))
    return Interval(low, high)


def _exact(statistic: Statistic, outcomes: Outcomes) -> Interval | None:
    """The exact interval of a share; None where the bootstrap has to tell."""
    is_right = statistic.is_right
    if is_right is None:
        return None
    num_right, num_images = int(is_right.sum()), len(_images(outcomes).unique())
    if num_right in (0, len(is_right)):
        return exact_interval(num_images if num_right else 0, num_images)
    if num_images == len(is_right) < EXACT_BELOW:
        return exact_interval(num_right, num_images)
    return None


def _images(outcomes: Outcomes) -> Tensor:
    return torch.arange(len(outcomes)) if outcomes.images is None else outcomes.images


def _item_counts(outcomes: Outcomes) -> Iterator[Tensor]:
    """How many times each item is drawn, some draws at a time: (R, Q) float64."""
    generator = Generator().manual_seed(SEED)
    names, images = _images(outcomes).unique(return_inverse=True)
    size = max(1, CHUNK_SIZE // len(images))
    for start in range(0, NUM_DRAWS, size):
        rows = min(size, NUM_DRAWS - start)
        drawn = torch.randint(len(names), (rows, len(names)), generator=generator)
        counts = torch.zeros(rows, len(names), dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones(1, 1, dtype=torch.float64).expand_as(drawn))
        yield counts[:, images]


def _percentiles(drawn: Tensor) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = drawn.quantile(drawn.new_tensor([tail, 1 - tail])).tolist()
    return Interval(low, high)


def _at_least(num_right: int, num_items: int, share: float) -> float:
    """Probability of as many right items or more."""
    places = range(num_right, num_items + 1)
    return sum(comb(num_items, i) * share**i * (1 - share) ** (num_items - i) for i in places)


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of a share is 0."""
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
