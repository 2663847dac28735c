"""How alike captions are to those of people: CIDEr-D, BLEU and ROUGE-L, number for number pycocoevalcap's.

Its tokenizer, METEOR and SPICE are Java programs, and not here: words are told apart by `words`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from vlp.metrics.outcomes import CaptionScores

LONGEST = 4
"""Words of the longest n-gram."""
SIGMA = 6.0
"""Of CIDEr-D's penalty for another length."""
BETA = 1.2
"""How much more ROUGE-L weighs recall than precision."""
WORD = re.compile(r"[^\W_]+(?:['.,-][^\W_]+)*")

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]
Weights = Mapping[tuple[str, ...], float]


def words(caption: str) -> list[str]:
    """Words in lower case, without punctuation but within a word."""
    return WORD.findall(caption.lower())


def caption_outcomes(captions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """What becomes of one caption per image, by the captions that people gave it."""
    said, wanted = [words(one) for one in captions], [[words(one) for one in some] for some in references]
    counts = [bleu_counts(one, some) for one, some in zip(said, wanted, strict=True)]
    correct, guessed, lengths = (torch.tensor(part).T for part in zip(*counts, strict=True))
    return CaptionScores(
        cider=cider_d(said, wanted),
        rouge_l=torch.tensor([rouge_l(*pair) for pair in zip(said, wanted, strict=True)]).double(),
        correct=correct,
        guessed=guessed,
        lengths=lengths,
        captions=tuple(captions),
    )


def bleu_counts(caption: Words, references: Sequence[Words]) -> tuple[list[int], list[int], list[int]]:
    """n-grams that a reference has too, and all of them, of each length; words of it and of the reference
    that is nearest in length."""
    most: Grams = Counter()
    for reference in references:
        most |= _grams(reference)
    correct = [0] * LONGEST
    for gram, count in _grams(caption).items():
        correct[len(gram) - 1] += min(count, most[gram])
    guessed = [max(0, len(caption) - n) for n in range(LONGEST)]
    _, nearest = min((abs(len(one) - len(caption)), len(one)) for one in references)
    return correct, guessed, [len(caption), nearest]


def rouge_l(caption: Words, references: Sequence[Words]) -> float:
    """F-measure of the longest common subsequence: best precision and best recall of any reference."""
    common = [_common(caption, one) for one in references]
    precision = max(common) / max(1, len(caption))
    recall = max(n / max(1, len(one)) for n, one in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def cider_d(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> Tensor:
    """CIDEr-D of each caption, in [0, 10]; n-grams weigh by how few images' references have them: (Q,)."""
    of_images = [[_grams(one) for one in some] for some in references]
    frequency = Counter(gram for some in of_images for gram in set().union(*some))
    num_images = math.log(len(captions))

    def weighted(grams: Grams) -> Weights:
        return {
            gram: count * (num_images - math.log(max(1, frequency[gram]))) for gram, count in grams.items()
        }

    scores = []
    for caption, some, grams in zip(captions, references, of_images, strict=True):
        own = weighted(_grams(caption))
        alike = [
            _similarity(own, weighted(of_reference), len(caption), len(one))
            for one, of_reference in zip(some, grams, strict=True)
        ]
        scores.append(10 * sum(alike) / len(alike))
    return torch.tensor(scores, dtype=torch.float64)


def _similarity(own: Weights, others: Weights, length: int, length_of_other: int) -> float:
    """Clipped cosines of the n-grams, the mean over their lengths, less for another length."""
    difference = max(0, length - 1) - max(0, length_of_other - 1)  # in pairs of words, as pycocoevalcap
    norm, norm_of_other = _norms(own), _norms(others)
    products = [0.0] * LONGEST
    for gram, weight in own.items():
        other = others.get(gram, 0.0)
        products[len(gram) - 1] += min(weight, other) * other
    cosines = (
        product / (a * b) if a and b else product
        for product, a, b in zip(products, norm, norm_of_other, strict=True)
    )
    return sum(cosines) / LONGEST * math.exp(-(difference**2) / (2 * SIGMA**2))


def _norms(weights: Weights) -> list[float]:
    squares = [0.0] * LONGEST
    for gram, weight in weights.items():
        squares[len(gram) - 1] += weight**2
    return [math.sqrt(square) for square in squares]


def _grams(caption: Words) -> Grams:
    return Counter(_every_gram(caption))


def _every_gram(caption: Words) -> Iterable[tuple[str, ...]]:
    for n in range(1, LONGEST + 1):
        yield from zip(*(caption[start:] for start in range(n)), strict=False)


def _common(first: Words, second: Words) -> int:
    """Words of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
