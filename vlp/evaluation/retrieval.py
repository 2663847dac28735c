"""Image-text retrieval: captions find their image, and images one of their captions (arXiv:2103.00020)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.sets import CaptionedImages
from vlp.metrics.outcomes import MatchRanks
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

    def measure(self, model: Embedder, data: CaptionedImages) -> Mapping[str, MatchRanks]:
        captions = data.images.labels()
        return retrieval_outcomes(
            model.embed_images(data.images),
            model.embed_texts([caption for texts in captions for caption in texts]),
            torch.tensor([image for image, texts in enumerate(captions) for _ in texts]),
        )
