"""Captioning of frozen features by a small decoder that learns from them, as ClipCap (arXiv:2111.09734)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from vlp.core.config import Above, AtLeast
from vlp.core.registry import ByName
from vlp.evaluation.captioner import Captioner, DecoderSize
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.hiding import Hiding, check_hidden_by
from vlp.evaluation.sets import ImagesToCaption
from vlp.masking import STRATEGIES, MaskStrategy
from vlp.metrics.captions import caption_outcomes
from vlp.metrics.fitting import Recipe
from vlp.metrics.outcomes import CaptionScores


@EVALUATIONS.register
@dataclass(frozen=True, kw_only=True)
class Captioning(Evaluation[ImagesToCaption]):
    """CIDEr-D, BLEU and ROUGE-L of captions of the test images, and of what masks leave of these.

    What is hidden is grey, the mean of all images, so models of every objective are shown the same.
    """

    name = "captioning"
    title = "Captioning"
    reads = ImagesToCaption
    headings: ClassVar = {"captioning/cider": "CIDEr", "captioning/bleu4": "BLEU-4"}

    hidden_by: tuple[Annotated[MaskStrategy, ByName(STRATEGIES)], ...] = ()
    """Also caption the test images with patches hidden by each of these, which look at pixels alone; in
    metrics with their name, as `captioning/cluster/cider`."""
    epochs: Annotated[int, AtLeast(1)] = 10
    """Passes over the captions of the training images."""
    lr: Annotated[float, Above(0)] = 1e-3
    """Peak learning rate of AdamW, after 5,000 steps or a tenth of all; a cosine takes it to 0."""
    batch_size: Annotated[int, AtLeast(1)] = 40
    """Captions per step."""
    prefix_length: Annotated[int, AtLeast(1)] = 10
    """Tokens that the features of an image become."""
    width: Annotated[int, AtLeast(1)] = 256
    """Numbers per token of the decoder."""
    depth: Annotated[int, AtLeast(1)] = 4
    """Blocks of the decoder."""
    num_heads: Annotated[int, AtLeast(1)] = 4
    """Heads of attention per block; they share the width."""
    num_beams: Annotated[int, AtLeast(1)] = 5
    """Texts that the search keeps at each step; 1 takes the likeliest token always."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        check_hidden_by(self.hidden_by)

    @property
    def metrics(self) -> frozenset[str]:
        names = ("captioning", *(f"captioning/{mask.name}" for mask in self.hidden_by))
        scores = ("cider", "rouge_l", "bleu1", "bleu2", "bleu3", "bleu4")
        return frozenset(f"{name}/{score}" for name in names for score in scores)

    def measure(self, model: Embedder, data: ImagesToCaption) -> Mapping[str, CaptionScores]:
        captioner, references = self._captioner(model, data), data.test.labels()

        def outcomes(features: Tensor) -> CaptionScores:
            return caption_outcomes(captioner.captions(features, num_beams=self.num_beams), references)

        found = {self.name: outcomes(model.features(data.test))}
        for mask in self.hidden_by:
            hide = Hiding.calibrated(mask, model, data.train)
            found[f"{self.name}/{mask.name}"] = outcomes(model.features_of_changed(data.test, hide))
        return found

    def _captioner(self, model: Embedder, data: ImagesToCaption) -> Captioner:
        features, captions = model.features(data.train), data.train.labels()
        images = torch.tensor([image for image, texts in enumerate(captions) for _ in texts])
        captioner = Captioner(features, model.tokenizer, [text for texts in captions for text in texts])
        captioner.fit(
            features,
            images,
            size=DecoderSize(
                prefix_length=self.prefix_length,
                width=self.width,
                depth=self.depth,
                num_heads=self.num_heads,
            ),
            recipe=Recipe(
                epochs=self.epochs,
                lr=self.lr,
                weight_decay=0.01,
                batch_size=self.batch_size,
                warmup_steps=5000,
            ),
            device=model.device,
        )
        return captioner
