"""A permutation sends every position to another place, all places alike, however many there are."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from vlp.data.permutation import permute


@pytest.mark.parametrize("num_items", [1, 2, 3, 16, 53, 255, 256, 257, 4099])
def test_every_place_is_taken_once(num_items: int) -> None:
    for seed in range(3):
        assert sorted(permute(np.arange(num_items), num_items, seed=seed)) == list(range(num_items))


def test_a_part_of_the_positions_goes_where_all_of_them_do() -> None:
    whole = permute(np.arange(1000), 1000, seed=5)
    assert np.array_equal(permute(np.arange(300, 400), 1000, seed=5), whole[300:400])
    assert np.array_equal(permute(np.array([7, 7, 999]), 1000, seed=5), whole[[7, 7, 999]])


def test_all_orders_of_a_few_are_equally_likely() -> None:
    """Chi-squared with 23 degrees of freedom: above 60 in one of 30,000 fair tries."""
    found = Counter(tuple(permute(np.arange(4), 4, seed=seed).tolist()) for seed in range(960))
    assert sum((found[order] - 40) ** 2 / 40 for order in permutations(range(4))) < 60


@pytest.mark.parametrize("num_items", [1000, 65536, 10**9 + 7, 2**40 + 1])
def test_neighbours_go_to_unrelated_places(num_items: int) -> None:
    count = 1000
    places = permute(np.arange(count), num_items, seed=1)
    assert len(set(places.tolist())) == count
    assert 0 <= places.min() <= places.max() < num_items
    shares = places / num_items
    assert abs(shares.mean() - 0.5) < 5 / (12 * count) ** 0.5
    assert abs(np.corrcoef(shares[1:], shares[:-1])[0, 1]) < 5 / count**0.5
    counts = np.histogram(shares, bins=20, range=(0, 1))[0]
    assert ((counts - count / 20) ** 2 / (count / 20)).sum() < 70  # 19 degrees of freedom


def test_seeds_and_lengths_give_unrelated_permutations() -> None:
    one = permute(np.arange(1000), 1000, seed=1)
    for other in (permute(np.arange(1000), 1000, seed=2), permute(np.arange(1000), 1001, seed=1)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / 1000**0.5
        assert (one == other).sum() < 12
