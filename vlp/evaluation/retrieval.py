"""Image-text retrieval: captions find their image, and images one of their captions (arXiv:2103.00020)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from statistics import mean
from typing import ClassVar

import torch

from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import CaptionedImages
from vlp.metrics.outcomes import RECALL_AT, MatchRanks
from vlp.metrics.retrieval import retrieval_outcomes


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class Retrieval(Evaluation[CaptionedImages]):
    """Recall@1/5/10 and median rank among all images of the set, and among all captions."""

    name = "retrieval"
    reads = CaptionedImages
    needs_text = True
    headings: ClassVar = {
        "text_to_image/recall@1": "T->I R@1",
        "text_to_image/recall@5": "T->I R@5",
        "image_to_text/recall@1": "I->T R@1",
        "image_to_text/recall@5": "I->T R@5",
    }

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


def _found_by_chance(num_matches: int, num_candidates: int, k: int) -> float:
    """Probability that the first k of all candidates, in an arbitrary order, have a match among them."""
    num_others = num_candidates - num_matches
    if k > num_others:
        return 1.0
    return 1.0 - comb(num_others, k) / comb(num_candidates, k)
