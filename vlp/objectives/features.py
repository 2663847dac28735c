"""An image encoder alone, as other libraries keep one: it has features to be measured, and is not trained."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from vlp.encoders import ImageEncoder
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import Batch, Objective, ObjectiveConfig, Pooling, Step, Vocabulary

REMEDY = "an image encoder alone is not trained; name its folder by init_from.path, and an objective"


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(ObjectiveConfig):
    """Not a choice for runs, and so not registered."""

    name: Literal["features"] = "features"
    reads_captions: ClassVar[bool] = False

    @property
    def pooling(self) -> Pooling:
        return "class_token"

    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> "Features":
        return Features(image_encoder, mask)


class Features(Objective):
    """Gives what the encoder's first state is."""

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        raise TypeError(REMEDY)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        raise TypeError(REMEDY)

    def features(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)[:, 0]
