"""What masks leave of what captions name, told by a model that compares images with captions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS
from vlp.evaluation.hiding import Hiding, OfMasks
from vlp.evaluation.sets import CaptionedImages
from vlp.metrics.outcomes import WhatIsLeft


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class MaskedSimilarity(OfMasks):
    """Similarity of captions with their images before and after masks hide patches of these.

    What is hidden is grey. A mask that hides background leaves more of the lead that an image has over
    others than one that hides as much of what its captions name.
    """

    name = "what_is_left"
    title = "What masks leave of what captions name"
    needs_text = True
    numbers: ClassVar = {"before": "before", "after": "after", "left": "left"}

    def measure(self, model: Embedder, data: CaptionedImages) -> Mapping[str, WhatIsLeft]:
        captions = data.images.labels()
        image_of = torch.tensor([image for image, texts in enumerate(captions) for _ in texts])
        texts = model.embed_texts([text for of_image in captions for text in of_image])
        whole = model.embed_images(data.images)
        before = (texts * whole[image_of]).sum(dim=1)
        others = (texts @ whole.sum(dim=0) - before) / max(1, len(whole) - 1)
        found = {}
        for mask in self.hidden_by:
            hide = Hiding.calibrated(mask, model, data.images)
            left = model.project(model.features_of_changed(data.images, hide))
            after = (texts * left[image_of]).sum(dim=1)
            found[f"{self.name}/{mask.name}"] = WhatIsLeft(before, after, others, images=image_of)
        return found
