"""Which candidates come before the ones that are right, and which comes first of all."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from vlp.metrics.outcomes import ClassRanks


class Ranked(NamedTuple):
    """How candidates stand by their scores, for each of Q queries."""

    ranks: Tensor
    """(Q,) int64, the place of each query's best match, from 1."""
    firsts: Tensor
    """(Q,) int64, the candidate that comes first: a match where the rank is 1, and none elsewhere."""


def ranked(scores: Tensor, is_match: Tensor) -> Ranked:
    """The place of the best match among all candidates, and the candidate that comes first.

    Candidates that score *no less* come before the match, so ties and NaN count against the model: one that
    scores all alike gets the worst ranks, where sorting would give it arbitrary ones.

    Args:
        scores: (Q, M), higher for what comes sooner.
        is_match: (Q, M) bool; a query without any match gets rank M + 1.
    """
    matches, others = (
        scores.masked_fill(without, -float("inf")).max(dim=1) for without in (~is_match, is_match)
    )
    ranks = 1 + (~(scores < matches.values[:, None]) & ~is_match).sum(dim=1)
    return Ranked(ranks, matches.indices.where(ranks == 1, others.indices))


def class_outcomes(logits: Tensor, labels: Tensor, *, among: Sequence[int] | None = None) -> ClassRanks:
    """The place of the right class of each image, and the class that it was taken for.

    Args:
        logits: (Q, K).
        labels: (Q,) int64 in 0..K-1.
        among: classes that an image may be of, all others are masked; None for all.
    """
    classes = labels.new_tensor(range(logits.shape[1]) if among is None else among)
    ranks, firsts = ranked(logits[:, classes], labels[:, None] == classes)
    return ClassRanks(ranks, labels, len(classes), guesses=classes[firsts])
