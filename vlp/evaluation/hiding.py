"""Images of which masks hide patches: what protocols show to models in place of whole ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.core.registry import ByName
from vlp.data.image_tables import ImageTable
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.evaluation import Evaluation
from vlp.evaluation.sets import CaptionedImages
from vlp.masking import STRATEGIES, MaskStrategy
from vlp.objectives import Objective

CALIBRATION_IMAGES = 2000


def check_hidden_by(masks: Sequence[MaskStrategy]) -> None:
    """Raise a ValueError, of one line, unless masks look at pixels alone and have names of their own."""
    for mask in masks:
        if views := sorted(mask.views):
            raise ValueError(
                f"hidden_by must look at pixels alone, and {mask.name} reads {', '.join(views)}; "
                "take it out, or choose another feature"
            )
    names = [mask.name for mask in masks]
    if len(set(names)) < len(names):
        raise ValueError(f"hidden_by must have different names, got {', '.join(names)}")


class Hiding:
    """Greys what a mask hides of images; other patches in every batch, and the same in every measurement."""

    def __init__(self, mask: MaskStrategy, objective: Objective) -> None:
        self.mask, self.objective = mask, objective
        device = next(objective.parameters()).device
        self.generator = Generator(device).manual_seed(0)

    @classmethod
    def calibrated(cls, mask: MaskStrategy, model: Embedder, table: ImageTable) -> "Hiding":
        """By a mask that is calibrated on the first images of a table, where it needs that."""
        if not mask.is_calibrated:
            images = table.first_images(CALIBRATION_IMAGES)
            parts = (images[start : start + 100] for start in range(0, len(images), 100))
            inputs = [model.objective.mask_inputs(model.load(part)) for part in parts]
            mask = mask.calibrated(inputs, seed=0).mask
        return cls(mask, model.objective)

    def hidden(self, images: Tensor) -> Tensor:
        """Which patches: (B, 3, H, W) normalized -> (B, N) bool."""
        return self.mask(self.objective.mask_inputs(images), generator=self.generator)

    def hidden_pixels(self, images: Tensor) -> Tensor:
        """Which pixels: (B, 3, H, W) normalized -> (B, 1, H, W) bool."""
        config = self.objective.image_encoder.config
        side = config.image_size // config.patch_size
        squares = self.hidden(images).unflatten(1, (1, side, side)).float()
        return F.interpolate(squares, images.shape[2:]) > 0.5

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalized, twice."""
        return images.masked_fill(self.hidden_pixels(images), 0)


@dataclass(frozen=True, kw_only=True)
class OfMasks(Evaluation[CaptionedImages]):
    """A protocol that says something of masks; one model judges all of them.

    It is measured where its `hidden_by` is given.
    """

    reads = CaptionedImages
    numbers: ClassVar[Mapping[str, str]]
    """What is measured of each mask, with its heading."""

    hidden_by: tuple[Annotated[MaskStrategy, ByName(STRATEGIES)], ...]
    """The masks, which look at pixels alone; in metrics with their name, as `PROTOCOL/cluster/NUMBER`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hidden_by(self.hidden_by)

    @property
    def metrics(self) -> frozenset[str]:
        names = (mask.name for mask in self.hidden_by)
        return frozenset(f"{self.name}/{name}/{number}" for name in names for number in self.numbers)

    @classmethod
    def details(cls, metrics: Collection[str]) -> Mapping[str, str]:
        parts = {metric: metric.split("/") for metric in metrics if metric.startswith(f"{cls.name}/")}
        return {metric: f"{mask} {cls.numbers[number]}" for metric, (_, mask, number) in parts.items()}
