"""The balance passes as many captions of an entry as its formula says, and every one of a rare entry."""

import numpy as np

from vlp.tokenizers.balancing import draw, pair_number, pass_draw, pass_probability
from vlp.tokenizers.token_rows import TokenRows

COUNTS = np.array([0, 1, 100, 20_000, 5_000])
PAIRS = np.arange(20_000) * 7919


def test_a_frequent_entry_passes_t_times_and_a_rare_one_always() -> None:
    probability = pass_probability(COUNTS, 100)
    assert probability.tolist() == [1, 1, 1, 100 / 20_000, 100 / 5_000]
    alone = pass_draw(TokenRows.of([[3]] * 20_000), PAIRS, probability, seed=1)
    assert abs(alone.sum() - 100) < 4 * 100**0.5  # of a binomial number
    assert pass_draw(TokenRows.of([[3, 2, 3]] * 50), PAIRS[:50], probability, seed=1).all()


def test_a_pair_stays_as_often_as_any_of_its_entries_passes() -> None:
    probability = pass_probability(COUNTS, 1000)
    found = pass_draw(TokenRows.of([[3, 4, 3]] * 20_000), PAIRS, probability, seed=0).mean()
    expected = 1 - (1 - 1000 / 20_000) * (1 - 1000 / 5_000)
    assert abs(found - expected) < 4 * (expected * (1 - expected) / 20_000) ** 0.5


def test_a_pair_without_entries_does_not_stay_and_none_are_no_mistake() -> None:
    rows = TokenRows.of([[], [1], []])
    assert pass_draw(rows, PAIRS[:3], pass_probability(COUNTS, 1), seed=0).tolist() == [False, True, False]
    assert pass_draw(TokenRows.of([]), PAIRS[:0], pass_probability(COUNTS, 1), seed=0).tolist() == []


def test_draws_are_uniform_and_of_the_seed() -> None:
    drawn = [draw(seed, PAIRS, np.full(len(PAIRS), 5)) for seed in (0, 1)]
    for each in drawn:
        assert np.histogram(each, 10, (0, 1))[0].std() < 4 * 2000**0.5
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.03


def test_a_pair_is_known_by_image_and_caption() -> None:
    assert len({pair_number(*pair) for pair in (("a", "b"), ("a", "c"), ("b", "b"), ("a\nb", ""))}) == 4
    assert 0 <= pair_number("a", "\ud800") < 2**63
