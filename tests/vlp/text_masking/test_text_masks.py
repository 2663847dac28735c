"""Each text mask against its definition, written as a loop over one caption's words."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Generator

from vlp.text_masking import Words
from vlp.text_masking.block import BlockTextMask
from vlp.text_masking.frequency import FrequencyTextMask
from vlp.text_masking.random import RandomTextMask
from vlp.text_masking.strategy import TextMask
from vlp.text_masking.truncate import TruncateTextMask

START, END, DRAWS = 98, 99, 6000


def draws(mask: TextMask, caption: list[int], shares: list[float] | None = None) -> list[list[int]]:
    """The words that are left of a caption, in many draws."""
    tokens = torch.tensor([[START, *caption, END, 0]]).expand(DRAWS, -1)
    noise = torch.rand(tokens.shape, generator=Generator().manual_seed(0))
    known = None if shares is None else torch.tensor([[1.0, *shares, 1.0, 1.0]]).expand(DRAWS, -1)
    left, lengths = mask(Words(tokens, torch.full((DRAWS,), len(caption) + 2), noise, known))
    assert lengths.tolist() == [min(len(caption) + 2, mask.tokens_left(77))] * DRAWS
    return [row[1 : length - 1] for row, length in zip(left.tolist(), lengths.tolist(), strict=True)]


def test_truncation_leaves_the_first_words() -> None:
    assert draws(TruncateTextMask(num_tokens=5), [5, 3, 9, 1, 7]) == [[5, 3, 9]] * DRAWS


def test_random_leaves_every_set_of_words_equally_often() -> None:
    counts = Counter(map(tuple, draws(RandomTextMask(num_tokens=5), [5, 3, 9, 1, 7])))
    assert len(counts) == math.comb(5, 3)
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_a_block_begins_at_every_place_equally_often() -> None:
    caption = [5, 3, 9, 1, 7]
    counts = Counter(map(tuple, draws(BlockTextMask(num_tokens=5), caption)))
    assert counts.keys() == {tuple(caption[i : i + 3]) for i in range(3)}
    assert chisquare(list(counts.values())).pvalue > 1e-4


def by_definition(shares: list[float], kept: int, threshold: float, rng: np.random.Generator) -> list[int]:
    """CLIPF's rule for the words of one caption: which places stay."""
    scores = [rng.random() - max(0.0, 1 - math.sqrt(threshold / share)) for share in shares]
    return sorted(sorted(range(len(shares)), key=lambda i: -scores[i])[:kept])


@pytest.mark.parametrize("threshold", [1e-6, 1e-3])
def test_words_stay_as_often_as_the_rule_of_frequencies_says(threshold: float) -> None:
    shares = [0.05, 1e-3, 2e-6, 1e-7, 0.01, 1e-5]
    found = np.zeros(6)
    for words in draws(FrequencyTextMask(num_tokens=5, threshold=threshold), list(range(10, 16)), shares):
        found[[word - 10 for word in words]] += 1 / DRAWS
    rng = np.random.default_rng(0)
    expected = np.zeros(6)
    for _ in range(DRAWS):
        expected[by_definition(shares, 3, threshold, rng)] += 1 / DRAWS
    assert np.abs(found - expected).max() < 5 * (0.5 / DRAWS) ** 0.5
    assert found[3] > found[0]


def test_a_token_that_was_never_counted_is_rare() -> None:
    kept = draws(FrequencyTextMask(num_tokens=3), [10, 11], [0.9, 0.0])
    assert sum(words == [11] for words in kept) > 0.99 * DRAWS
