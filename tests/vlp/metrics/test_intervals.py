"""Intervals equal scipy's, and are of the images, not of the items that come from them."""

import numpy as np
import pytest
import torch
from scipy import stats

from vlp.metrics.intervals import (
    EXACT_BELOW,
    NUM_DRAWS,
    differences,
    draws,
    exact_interval,
    intervals,
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
