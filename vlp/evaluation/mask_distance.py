"""How far what masks hide is from what they leave: AvgDist (arXiv:2111.09886, section 4.1.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import torch

from vlp.evaluation.embedder import BATCH_SIZE, Embedder
from vlp.evaluation.evaluation import EVALUATIONS
from vlp.evaluation.hiding import Hiding, OfMasks
from vlp.evaluation.sets import CaptionedImages
from vlp.masking import MaskStrategy
from vlp.masking.distance import distance_of_patches
from vlp.metrics.outcomes import Hidden


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class MaskDistance(OfMasks):
    """AvgDist of masks on the images of a set, in sides of an image, and the share that they hide.

    At 192 pixels the 10 to 20 that suit SimMIM are 0.05 to 0.10. Of the model it says only how large
    patches are.
    """

    name = "mask_distance"
    title = "What masks hide"
    reads_weights = False
    numbers: ClassVar = {"share": "hidden", "avg_dist": "AvgDist"}

    def embeds(self, data: CaptionedImages) -> tuple[()]:
        return ()

    def measure(self, model: Embedder, data: CaptionedImages) -> Mapping[str, Hidden]:
        return {f"{self.name}/{mask.name}": _hidden(mask, model, data) for mask in self.hidden_by}


@torch.no_grad()
def _hidden(mask: MaskStrategy, model: Embedder, data: CaptionedImages) -> Hidden:
    hide = Hiding.calibrated(mask, model, data.images)
    config, images = model.objective.image_encoder.config, iter(data.images.images())
    shares, distances = [], []
    while part := list(islice(images, BATCH_SIZE)):
        hidden = hide.hidden(model.load(part)).cpu()
        shares.append(hidden.float().mean(dim=1))
        distances.append(distance_of_patches(hidden, config.patch_size) / config.image_size)
    return Hidden(torch.cat(shares), torch.cat(distances))
