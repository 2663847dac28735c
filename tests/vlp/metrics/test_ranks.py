"""What comes first, what is taken for what, and the best and the worst of it."""

import torch
from sklearn.metrics import confusion_matrix

from vlp.metrics.extremes import extremes
from vlp.metrics.outcomes import ClassRanks, MatchRanks
from vlp.metrics.ranks import class_outcomes, ranked


def test_what_comes_first_is_a_match_only_where_the_rank_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (500, 9), generator=generator).float()  # many ties
    is_match = torch.rand(500, 9, generator=generator) < 0.2
    ranks, firsts = ranked(scores, is_match)
    rows = torch.arange(500)
    assert torch.equal(is_match[rows, firsts], ranks == 1)
    best_other = scores.masked_fill(is_match, -torch.inf).amax(dim=1)
    behind = ranks > 1
    assert torch.equal(scores[rows, firsts][behind], best_other[behind])


def test_confusion_equals_scikit_learns_and_its_diagonal_the_accuracy() -> None:
    generator = torch.Generator().manual_seed(1)
    outcomes = class_outcomes(
        torch.randn(400, 6, generator=generator), torch.randint(0, 5, (400,), generator=generator)
    )
    found = outcomes.confusion()
    assert found is not None
    assert outcomes.guesses is not None
    expected = confusion_matrix(outcomes.labels, outcomes.guesses, labels=found.classes)
    counts = torch.tensor(expected).double()
    assert torch.allclose(found.shares, counts / counts.sum(dim=1, keepdim=True).clamp(min=1))
    assert counts.diagonal().sum() / 400 == outcomes.metrics()["acc1"]


def test_classes_without_images_have_no_row_and_unknown_guesses_no_matrix() -> None:
    labels, guesses = torch.tensor([7, 7, 9]), torch.tensor([7, 9, 9])
    found = ClassRanks(torch.tensor([1, 2, 1]), labels, 12, guesses=guesses).confusion()
    assert found is not None
    assert found.classes.tolist() == [7, 9]
    assert found.shares.tolist() == [[0.5, 0.5], [0.0, 1.0]]
    assert ClassRanks(torch.tensor([1]), torch.tensor([0]), 3).confusion() is None


def test_extremes_are_of_different_images() -> None:
    ranks = torch.tensor([3, 1, 9, 9, 1, 2])
    outcomes = MatchRanks(ranks, images=torch.tensor([0, 0, 1, 1, 2, 2]))
    assert extremes(outcomes, 2) == ([1, 4], [2, 0])
    assert extremes(MatchRanks(ranks), 9).worst == [2, 3, 0, 5, 1, 4]
