"""Intervals equal scipy's, and are of the images, not of the items that come from them."""

import numpy as np
import pytest
import torch
from scipy import stats

from vlp.metrics.intervals import (
    EXACT_BELOW,
    NUM_DRAWS,
    Interval,
    differences,
    draws,
    exact_interval,
    intervals,
    seed_differences,
    seed_means,
)
from vlp.metrics.outcomes import Answers, ClassRanks, MatchRanks


@pytest.mark.parametrize(
    ("right", "items"), [(0, 1), (1, 1), (0, 40), (40, 40), (1, 299), (91, 200), (298, 299)]
)
def test_exact_intervals_are_those_of_the_binomial_test(right: int, items: int) -> None:
    expected = stats.binomtest(right, items).proportion_ci(method="exact")
    assert exact_interval(right, items) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_shares_of_few_images_have_the_exact_interval() -> None:
    is_right = torch.arange(EXACT_BELOW - 1) % 3 == 0
    found = intervals(Answers(is_right[None]))
    assert found == {"acc1": exact_interval(int(is_right.sum()), len(is_right))}
    assert intervals(Answers(torch.arange(EXACT_BELOW)[None] % 3 == 0)) != found


def ranks(num_images: int, *, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).geometric(0.2, num_images))


def test_the_bootstrap_is_that_of_scipy() -> None:
    of_items = ranks(600)
    found = intervals(MatchRanks(of_items))
    values = {
        "recall@1": ((of_items <= 1).numpy(), np.mean),
        "recall@5": ((of_items <= 5).numpy(), np.mean),
        "median_rank": (of_items.numpy(), np.median),
    }
    for name, (data, statistic) in values.items():
        expected = stats.bootstrap(
            (data,), statistic, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
        )
        low, high = expected.confidence_interval
        assert found[name] == pytest.approx((low, high), abs=0.25 * float(expected.standard_error))


def test_every_draw_is_the_number_about_the_items_that_were_drawn() -> None:
    """Against the metrics of outcomes in which each item is repeated as often as it was drawn."""
    labels = torch.arange(40) % 3
    of_items = ranks(40)
    counts = torch.from_numpy(np.random.default_rng(2).integers(0, 4, (5, 40))).double()
    for number in ("acc1", "mean_per_class_recall"):
        found = ClassRanks(of_items, labels, 3).statistics()[number](counts)
        for row, value in zip(counts.long(), found, strict=True):
            again = ClassRanks(of_items.repeat_interleave(row), labels.repeat_interleave(row), 3).metrics()
            assert value.item() == pytest.approx(again[number])
    found = MatchRanks(of_items).statistics()["median_rank"](counts)
    expected = [np.median(of_items.repeat_interleave(row).numpy()) for row in counts.long()]
    assert found.tolist() == expected


def test_captions_of_an_image_are_drawn_together() -> None:
    """Five captions that share a fate say no more than one."""
    once = ranks(400)
    alone, repeated = MatchRanks(once), MatchRanks(once.repeat_interleave(5), images=torch.arange(2000) // 5)
    assert intervals(repeated) == intervals(alone)
    taken_for_images = intervals(MatchRanks(once.repeat_interleave(5)))["recall@1"]
    low, high = intervals(repeated)["recall@1"]
    assert high - low > 2 * (taken_for_images.high - taken_for_images.low)


def test_items_that_are_all_wrong_leave_room_for_what_was_not_seen() -> None:
    wrong = MatchRanks(torch.full((2000,), 99), images=torch.arange(2000) // 5)
    assert intervals(wrong)["recall@1"] == exact_interval(0, 400)
    right = MatchRanks(torch.ones(2000, dtype=torch.int64), images=torch.arange(2000) // 5)
    assert intervals(right)["recall@1"] == exact_interval(400, 400)
    assert intervals(Answers(torch.zeros(3, 500, dtype=torch.bool)))["acc1"] == exact_interval(0, 500)


def test_intervals_are_the_same_every_time_and_take_no_random_number_of_others() -> None:
    outcomes, state = MatchRanks(ranks(500)), torch.get_rng_state()
    assert intervals(outcomes) == intervals(outcomes)
    assert torch.equal(torch.get_rng_state(), state)
    assert {len(drawn) for drawn in draws(outcomes).values()} == {NUM_DRAWS}


def test_a_paired_difference_is_told_where_two_intervals_overlap() -> None:
    """One model is right wherever the other is, and on two in a hundred items more."""
    rng = np.random.default_rng(0)
    first = torch.from_numpy(rng.random(1000) < 0.5)
    second = first | torch.from_numpy(rng.random(1000) < 0.04)
    worse, better = Answers(first[None]), Answers(second[None])
    assert intervals(better)["acc1"].low < intervals(worse)["acc1"].high
    found = differences(better, worse)["acc1"]
    assert found.stands_out
    assert found.value == pytest.approx((second.double() - first.double()).mean().item())
    gains = (second.double() - first.double()).numpy()
    expected = stats.bootstrap((gains,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.002)
    back = differences(worse, better)["acc1"]
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert not differences(worse, worse)["acc1"].stands_out


def test_other_items_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="outcomes of 8 items cannot be paired with those of 9 others"):
        differences(MatchRanks(ranks(8)), MatchRanks(ranks(9)))


def by_seeds(
    rng: np.random.Generator, *, size: int, share: float, spread: float, gain: float = 0.0
) -> list[Answers]:
    """Three runs on the same images, whose chance of being right is shared and shifted by the seed."""
    images = rng.random(size) / 2 - 0.25
    of_seeds = share + gain + spread * rng.standard_normal(3)
    rights = [rng.random(size) < np.clip(one + images, 0, 1) for one in of_seeds]
    return [Answers(torch.from_numpy(right)[None]) for right in rights]


def test_one_seed_has_the_numbers_of_its_run() -> None:
    run = MatchRanks(ranks(400))
    found = seed_means([run])
    assert {key: one.value for key, one in found.items()} == run.metrics()
    assert {key: Interval(one.low, one.high) for key, one in found.items()} == intervals(run)
    other = MatchRanks(ranks(400, seed=1))
    assert seed_differences([run], [other]) == differences(run, other)


def test_without_noise_of_images_the_interval_is_students() -> None:
    """A median that no draw of images moves has the noise of its seeds alone."""
    runs = [MatchRanks(torch.full((400,), rank)) for rank in (3, 4, 8)]
    found = seed_means(runs)["median_rank"]
    expected = stats.t.interval(0.95, 2, loc=5, scale=stats.sem([3, 4, 8]))
    assert found.value == 5
    assert found.spread == pytest.approx(np.std([3, 4, 8], ddof=1))
    assert (found.low, found.high) == pytest.approx(expected, rel=0.05)


def test_without_noise_of_seeds_the_interval_is_that_of_the_images() -> None:
    run = MatchRanks(ranks(500))
    found = seed_means([run] * 3)
    for key, (low, high) in intervals(run).items():
        assert (found[key].low, found[key].high) == pytest.approx((low, high))
    wrong = MatchRanks(torch.full((2000,), 99))
    assert seed_means([wrong] * 2)["recall@1"][1:3] == intervals(wrong)["recall@1"]


def test_shares_stay_within_0_and_1() -> None:
    runs = [MatchRanks(1 + (torch.arange(40) >= right).long() * 9) for right in (1, 6)]
    found = seed_means(runs)["recall@1"]
    assert found.low == 0
    assert found.value < found.high <= 1


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_intervals_over_seeds_hold_what_other_seeds_and_images_would_give(spread: float) -> None:
    """Of 60 experiments 57; three seeds drawn with replacement would hold some 45 of the wider spread."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        found = seed_means(by_seeds(rng, size=60, share=0.5, spread=spread))["acc1"]
        held += found.low <= 0.5 <= found.high
    assert held >= 53


def test_a_difference_stands_out_only_of_its_seeds_too() -> None:
    rng = np.random.default_rng(4)
    alike = [by_seeds(rng, size=60, share=0.5, spread=0.1) for _ in range(40)]
    stand_out = sum(
        seed_differences(ours, others)["acc1"].stands_out
        for ours, others in zip(alike[::2], alike[1::2], strict=True)
    )
    assert stand_out <= 3
    far, near = (by_seeds(rng, size=1000, share=share, spread=0.005) for share in (0.3, 0.6))
    found = seed_differences(near, far)["acc1"]
    assert found.stands_out
    assert found.value == pytest.approx(0.3, abs=0.05)


def test_runs_of_other_items_or_of_fewer_seeds_are_not_compared() -> None:
    runs = [MatchRanks(ranks(40, seed=seed)) for seed in range(3)]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        seed_differences(runs, runs[:2])
    with pytest.raises(ValueError, match="cannot be paired"):
        seed_differences(runs, [MatchRanks(ranks(41))] * 3)
