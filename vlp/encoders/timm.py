"""Image encoders of timm, by name: vision transformers, and, for whole images, ResNet and ConvNeXt."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch

from vlp.core.config import Within
from vlp.encoders.image_encoder import IMAGE_ENCODERS, ImageEncoder, ImageEncoderConfig, TimmModel
from vlp.masking.strategy import View

if TYPE_CHECKING:
    from vlp.encoders._timm_encoders import TimmEncoder


class Facts(NamedTuple):
    """What the structure of a model of timm allows."""

    encoder: "type[TimmEncoder]"
    """What makes an encoder of it."""
    patch_size: int
    has_batch_norms: bool
    is_by_token: bool
    """Whether timm pools it by a class token, to which the patches' states are alike."""


@IMAGE_ENCODERS.register
@dataclass(frozen=True, kw_only=True)
class TimmConfig(ImageEncoderConfig):
    """A model of timm with the sizes that its name stands for; weights come by `init_from`.

    Patches can be left out of vision transformers whose patches are embedded each for itself. Others see
    whole images: a state of theirs is then what counts as a patch.
    """

    name: Literal["timm"] = "timm"
    model: str = "vit_small_patch16_224"
    """Its name in timm, such as vit_small_patch16_224, resnet50 or convnext_tiny."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What `timm.create_model` is told beside it, such as {reg_tokens: 4}."""
    drop_path: Annotated[float, Within(0, 1, "[)")] = 0.0
    """Share of samples that skip the last block in training; earlier blocks are skipped less often."""

    @property
    def all_arguments(self) -> dict[str, Any]:
        """With the share of paths to drop among them."""
        return dict(self.arguments) | ({"drop_path_rate": self.drop_path} if self.drop_path else {})

    @property
    def facts(self) -> Facts:
        """What the model's structure allows."""
        return _facts(self.model, self.image_size, json.dumps(self.all_arguments, sort_keys=True))

    @property
    def label(self) -> str:
        return f"timm {self.model}"

    @property
    def patch_size(self) -> int:
        return self.facts.patch_size

    @property
    def stride(self) -> int:
        return self.facts.patch_size

    @property
    def can_drop_patches(self) -> bool:
        return self.facts.encoder.sees_patches_apart

    @property
    def takes_mask_token(self) -> bool:
        return self.facts.encoder.sees_patches_apart

    @property
    def mixes_images(self) -> bool:
        return self.facts.has_batch_norms

    @property
    def views(self) -> frozenset[View]:
        return frozenset({"tokens"} if self.facts.encoder.sees_patches_apart else ())

    def as_timm(self) -> TimmModel:
        from vlp.encoders._timm_encoders import arguments_of

        means = {"mean": {"global_pool": "avg", "fc_norm": False}} if self.facts.is_by_token else {}
        arguments = arguments_of(self.model, self.image_size, self.arguments)
        return TimmModel(self.model, arguments, poolings={"class_token": {}} | means)

    def build(self) -> ImageEncoder:
        return self.facts.encoder(self)


@lru_cache(maxsize=64)  # settings are made again and again
def _facts(model: str, image_size: int, arguments: str) -> Facts:
    """Look at a model without weights.

    Args:
        arguments: as JSON, which can be looked up.

    Raises:
        ValueError: timm has no such model, or one that is not an image encoder here; says why.
    """
    import timm

    if not timm.is_model(model):
        close = get_close_matches(model, timm.list_models(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"model is {model!r}, which timm does not have{hint}")
    from vlp.encoders._timm_encoders import BatchNorm, create, encoder_of

    with torch.device("meta"):
        trunk = create(model, image_size, json.loads(arguments)).eval()
        encoder, patch_size = encoder_of(trunk, image_size)
    has_batch_norms = any(isinstance(module, BatchNorm) for module in trunk.modules())
    return Facts(encoder, patch_size, has_batch_norms, getattr(trunk, "global_pool", None) == "token")
