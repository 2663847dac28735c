"""Image-text retrieval: captions find their image, and images one of their captions (arXiv:2103.00020)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import comb
from statistics import mean
from typing import Any, ClassVar

import torch

from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.examples import Example, Examples
from vlp.evaluation.sets import CaptionedImages
from vlp.metrics.extremes import extremes
from vlp.metrics.outcomes import RECALL_AT, MatchRanks
from vlp.metrics.retrieval import retrieval_outcomes


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class Retrieval(Evaluation[CaptionedImages]):
    """Recall@1/5/10 and median rank among all images of the set, and among all captions."""

    name = "retrieval"
    title = "Zero-shot retrieval"
    reads = CaptionedImages
    needs_text = True
    headings: ClassVar = {
        "text_to_image/recall@1": "T->I R@1",
        "text_to_image/recall@5": "T->I R@5",
        "image_to_text/recall@1": "I->T R@1",
        "image_to_text/recall@5": "I->T R@5",
    }

    @classmethod
    def details(cls, metrics: Collection[str]) -> Mapping[str, str]:
        ways = {"image_to_text": "I->T", "text_to_image": "T->I"}
        found = {f"{way}/recall@{k}": f"{said} R@{k}" for way, said in ways.items() for k in RECALL_AT}
        return {metric: heading for metric, heading in found.items() if metric in metrics}

    @property
    def main_metric(self) -> str:
        return "text_to_image/recall@1"

    @property
    def metrics(self) -> frozenset[str]:
        names = [*(f"recall@{k}" for k in RECALL_AT), "median_rank"]
        return frozenset(f"{way}/{name}" for way in ("image_to_text", "text_to_image") for name in names)

    def chance(self, data: CaptionedImages) -> Mapping[str, float]:
        captions = [len(texts) for texts in data.images.labels()]
        found = {
            f"image_to_text/recall@{k}": mean(_found_by_chance(n, sum(captions), k) for n in captions)
            for k in RECALL_AT
        }
        return found | {f"text_to_image/recall@{k}": min(1.0, k / len(captions)) for k in RECALL_AT}

    def measure(self, model: Embedder, data: CaptionedImages) -> Mapping[str, MatchRanks]:
        captions = data.images.labels()
        return retrieval_outcomes(
            model.embed_images(data.images),
            model.embed_texts([caption for texts in captions for caption in texts]),
            torch.tensor([image for image, texts in enumerate(captions) for _ in texts]),
        )

    def examples(
        self, data: CaptionedImages, outcomes: Mapping[str, Any], *, count: int
    ) -> Mapping[str, Examples]:
        captions = data.images.labels()
        every_text = [text for texts in captions for text in texts]
        image_of = [image for image, texts in enumerate(captions) for _ in texts]
        text_of = [0, *accumulate(map(len, captions))]

        def texts(places: Sequence[int]) -> list[str]:
            return [every_text[place] for place in places]

        def images(places: Sequence[int]) -> list[bytes]:
            rows = sorted(set(places))
            found = dict(zip(rows, data.images.images_at(rows), strict=True))
            return [found[place] for place in places]

        ways: dict[str, tuple[Content, Content, list[int]]] = {
            "image_to_text": (images, texts, text_of),
            "text_to_image": (texts, images, image_of),
        }
        return {
            way: Examples(
                *(_examples(outcomes[way], items, *parts) for items in extremes(outcomes[way], count))
            )
            for way, parts in ways.items()
        }


Content = Callable[[Sequence[int]], Sequence[bytes | str]]
"""Images or texts of a set, at some places."""


def _examples(
    outcomes: MatchRanks, items: list[int], asked: Content, answers: Content, right_of: Sequence[int]
) -> list[Example]:
    """What was asked by some items, what belongs to it, and what came first."""
    firsts = [] if outcomes.firsts is None else outcomes.firsts[items].tolist()
    rights = [right_of[item] for item in items]
    ranks = outcomes.ranks[items].tolist()
    found = zip(asked(items), answers(rights), answers(firsts), ranks, strict=False)
    return [Example(*parts) for parts in found]


def _found_by_chance(num_matches: int, num_candidates: int, k: int) -> float:
    """Probability that the first k of all candidates, in an arbitrary order, have a match among them."""
    num_others = num_candidates - num_matches
    if k > num_others:
        return 1.0
    return 1.0 - comb(num_others, k) / comb(num_candidates, k)
