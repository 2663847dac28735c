"""How much of the objects that captions name masks leave, where a set says where these are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import torch

from vlp.data.image_tables import ImageTable
from vlp.evaluation.embedder import BATCH_SIZE, Embedder
from vlp.evaluation.evaluation import EVALUATIONS
from vlp.evaluation.hiding import Hiding, OfMasks
from vlp.evaluation.sets import CaptionedImages
from vlp.masking import MaskStrategy
from vlp.metrics.outcomes import ObjectsLeft


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class NamedObjects(OfMasks):
    """Share of the pixels of objects, and of all others, that masks leave.

    The set has a column `objects` of pictures that are white where objects are, as that of the sample corpus.
    """

    name = "objects_left"
    title = "What masks leave of objects"
    reads_weights = False
    numbers: ClassVar = {"objects": "objects", "background": "background"}

    def check_set(self, data: CaptionedImages) -> None:
        _objects(data).check()

    def embeds(self, data: CaptionedImages) -> tuple[()]:
        return ()

    def measure(self, model: Embedder, data: CaptionedImages) -> Mapping[str, ObjectsLeft]:
        return {f"{self.name}/{mask.name}": _left(mask, model, data) for mask in self.hidden_by}


def _objects(data: CaptionedImages) -> ImageTable:
    """The images, with where objects are."""
    return replace(data.images, column="objects")


@torch.no_grad()
def _left(mask: MaskStrategy, model: Embedder, data: CaptionedImages) -> ObjectsLeft:
    hide, parts = Hiding.calibrated(mask, model, data.images), []
    pairs = zip(data.images.images(), _objects(data).labels(), strict=True)
    while batch := list(islice(pairs, BATCH_SIZE)):
        images, objects = (model.load(part) for part in zip(*batch, strict=True))
        is_object = objects[:, :1] > 0  # white is above the mean, black below
        is_left = ~hide.hidden_pixels(images)
        counted = (is_object & is_left, is_object, ~is_object & is_left, ~is_object)
        parts.append([one.sum(dim=(1, 2, 3)).float().cpu() for one in counted])
    return ObjectsLeft(*(torch.cat(values) for values in zip(*parts, strict=True)))
