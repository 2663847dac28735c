"""Scores of captions are those of pycocoevalcap 1.2, whose numbers for these captions are written here."""

import pytest
import torch

from vlp.metrics.captions import caption_outcomes, words
from vlp.metrics.intervals import named_intervals

CAPTIONS = (
    (
        "under and red ball",
        ["grass near the and a ball", "under and red ball", "cat red big the"],
        4.076077091,
        1.000000000,
    ),
    (
        "big under small and",
        [
            "small table cat the red",
            "blue a table small small near table big",
            "sits under small and",
            "near and dog cat",
        ],
        1.808460569,
        0.750000000,
    ),
    ("sits", ["big dog grass", "on"], 0.000000000, 0.000000000),
    (
        "under small runs blue big and near cat",
        ["dog grass", "under small runs blue big and near cat", "a grass cat sits a a small"],
        3.504038357,
        1.000000000,
    ),
    ("the", ["the and", "dog cat runs grass red the grass table"], 1.235538463, 0.628865979),
    (
        "near red dog on and dog and near red dog on and dog and",
        ["near red dog on and dog and"],
        2.436061627,
        0.709302326,
    ),
    ("under dog grass on the", ["under dog grass on the"], 10.000000000, 1.000000000),
    (
        "under blue near on grass dog and near",
        ["blue a near sits cat big on table", "under blue near on grass dog small near", "on grass red"],
        3.153321845,
        0.875000000,
    ),
)
"""Caption, references, CIDEr-D and ROUGE-L."""
BLEU = (0.800000000, 0.764057448, 0.734012083, 0.697935388)


def test_scores_are_those_of_pycocoevalcap() -> None:
    captions, references, cider, rouge = zip(*CAPTIONS, strict=True)
    found = caption_outcomes(captions, references)
    assert found.cider.tolist() == pytest.approx(cider, abs=1e-6)
    assert found.rouge_l.tolist() == pytest.approx(rouge, abs=1e-6)
    metrics = found.metrics()
    assert [metrics[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx(BLEU, abs=1e-6)


def test_bleu_of_other_images_is_that_of_their_captions_together() -> None:
    captions, references, *_ = zip(*CAPTIONS, strict=True)
    counts = torch.tensor([[2.0, 0, 1, 0, 0, 0, 3, 0]], dtype=torch.float64)
    drawn = [place for place, count in enumerate(counts[0].int().tolist()) for _ in range(count)]
    again = caption_outcomes([captions[i] for i in drawn], [references[i] for i in drawn]).metrics()
    numbers = caption_outcomes(captions, references).statistics()
    for n in (1, 4):
        assert numbers[f"bleu{n}"](counts).item() == pytest.approx(again[f"bleu{n}"], abs=1e-9)


def test_a_caption_that_says_nothing_scores_nothing() -> None:
    found = caption_outcomes(["", "..."], [["a dog runs"], ["a cat", "the cat"]])
    assert set(found.metrics().values()) == {0.0}
    assert all(interval.low == 0 for interval in named_intervals({"x": found}).values())


def test_words_are_lower_case_and_without_punctuation() -> None:
    assert words("A dog's ball - red, (well-worn).") == ["a", "dog's", "ball", "red", "well-worn"]
