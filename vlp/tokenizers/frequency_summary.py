"""What a document-frequency table says about the labels that SuperClass makes of captions."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vlp.tokenizers import Tokenizer
from vlp.tokenizers.document_frequency import DocumentFrequency

TOP = (1, 10, 100, 1000, 10_000)


class TokenRow(NamedTuple):
    """One token of a table, by its rank."""

    rank: int
    """From 1, the most frequent."""
    token: str
    document_frequency: int
    share: float
    """Of the captions, in [0, 1]."""
    idf: float


def idf(frequency: DocumentFrequency) -> np.ndarray:
    """The weight that SuperClass gives to each token, log((n + 1) / (df + 1)): (vocabulary,) float64."""
    return np.log((frequency.num_documents + 1) / (frequency.counts + 1))


def summarize(frequency: DocumentFrequency) -> dict[str, Any]:
    """Counts, and which share of all labels the most frequent tokens hold.

    `label_mass` adds up document frequencies, `idf_weighted_label_mass` document frequency times idf: of the
    weight that the loss gives to labels, the part that is spent on the top tokens.
    """
    counts = np.sort(frequency.counts)[::-1]
    by_rank = np.argsort(-frequency.counts, kind="stable")
    weighted = (frequency.counts * idf(frequency))[by_rank]
    return {
        "tokenizer": frequency.tokenizer,
        "vocab_size": len(counts),
        "num_documents": frequency.num_documents,
        "num_distinct_tokens": int(np.count_nonzero(counts)),
        "distinct_tokens_per_document": float(counts.sum() / max(1, frequency.num_documents)),
        "label_mass": _shares(counts),
        "idf_weighted_label_mass": _shares(weighted),
    }


def head_and_tail(
    frequency: DocumentFrequency, tokenizer: Tokenizer, *, size: int
) -> tuple[list[TokenRow], list[TokenRow]]:
    """The most and the least frequent tokens that occur at all, at most `size` of each, by rank."""
    ranked = np.argsort(-frequency.counts, kind="stable")[: np.count_nonzero(frequency.counts)]
    tail = max(size, len(ranked) - size)
    weights = idf(frequency)

    def rows(start: int, end: int) -> Iterator[TokenRow]:
        for rank, i in enumerate(ranked[start:end].tolist(), start=start + 1):
            count = int(frequency.counts[i])
            share = count / frequency.num_documents
            yield TokenRow(rank, tokenizer.token_of(i), count, share, float(weights[i]))

    return list(rows(0, size)), list(rows(tail, len(ranked)))


def _shares(mass: np.ndarray) -> dict[str, float]:
    total = mass.sum() or 1
    return {f"top_{top}": float(mass[:top].sum() / total) for top in TOP if top < len(mass)}
