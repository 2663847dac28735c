"""What an image encoder is: images and a choice of patches to vectors."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from vlp.core.config import AtLeast, StrictConfig
from vlp.core.registry import Registry
from vlp.masking import MaskInputs, Slots
from vlp.masking.strategy import View

Weights = Mapping[str, Tensor]
Names = Sequence[tuple[str, str]]
"""Theirs and ours: how a name begins, of which the first that fits counts, or, from a dot on, a part."""

IMAGE_ENCODERS = Registry()


class TimmModel(NamedTuple):
    """A model of timm: `timm.create_model(architecture, **arguments)`."""

    architecture: str
    arguments: dict[str, Any]
    poolings: Mapping[str, dict[str, Any]] = MappingProxyType(
        {"class_token": {"global_pool": "token"}, "mean": {"global_pool": "avg"}}
    )
    """What makes it give the class token, or the mean of the patches; of these, those that it can give."""


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig(ABC, StrictConfig):
    """The sizes of an image encoder; `build` makes its module."""

    name: str
    """Which encoder it is."""
    image_size: Annotated[int, AtLeast(1)] = 224
    """Side of the square input, in pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )

    @property
    def label(self) -> str:
        """What messages and tables call it."""
        return self.name

    @property
    def num_patches(self) -> int:
        """N."""
        return (self.image_size // self.patch_size) ** 2

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a patch, in pixels; a setting of its own where it can be chosen."""

    @property
    def can_drop_patches(self) -> bool:
        """Whether hidden patches may be left out of the input."""
        return True

    @property
    def takes_mask_token(self) -> bool:
        """Whether a mask token may take the places of hidden patches."""
        return True

    @property
    def mixes_images(self) -> bool:
        """Whether an image's states depend on the others of its batch in training, as by batch norms."""
        return False

    @property
    def final_norm(self) -> bool:
        """Whether its states are normalized; a setting of its own where it can be chosen."""
        return True

    @property
    def views(self) -> frozenset[View]:
        """What it shows to masks beside the pixels."""
        return frozenset({"tokens"})

    @property
    @abstractmethod
    def stride(self) -> int:
        """Side of the square that one state of whole images stands for, in pixels."""

    def as_timm(self) -> TimmModel:
        """The model of timm that has the same weights.

        Raises:
            ValueError: there is none; says why.
        """
        raise ValueError(f"timm has no model like image_encoder {self.name}")

    @abstractmethod
    def build(self) -> "ImageEncoder":
        """A new encoder, with random weights."""


class ImageEncoder(nn.Module, ABC):
    """Turns the patches of images into states; masks are chosen by the objective, never in here."""

    config: ImageEncoderConfig
    width: int
    """D, numbers per state."""
    token_width: int
    """Numbers per embedded patch, of which the mask token is one; states may be wider."""
    blocks: Iterable[nn.Module]
    """Its blocks; the first is next to the input."""
    shared_by_blocks: ClassVar[Collection[str]] = ()
    """Names of parameters that all blocks use, and that so belong to none of them."""
    timm_names: ClassVar[Names] = ()
    """What timm's model and this one call the same weights, where they differ."""

    @abstractmethod
    def encode_replaced(self, images: Tensor, masked: Tensor, mask_token: Tensor) -> Tensor:
        """States of whole images in which a token takes the places of the hidden patches.

        Args:
            images: (B, 3, H, W).
            masked: (B, N) bool, True where hidden.
            mask_token: (token_width,).

        Returns:
            (B, (H / config.stride)^2, D), row by row from the top left.
        """

    @abstractmethod
    def forward(self, images: Tensor, slots: Slots | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + V, D): the class token, then the visible patches.

        An encoder that cannot drop patches takes slots for all of them, or none. The first state of one
        without a class token stands for the image as a whole, too, such as the mean of the others.
        """

    @abstractmethod
    def mask_inputs(self, images: Tensor) -> MaskInputs:
        """The view of (B, 3, H, W) images that masking strategies work on."""

    def changing_buffers(self) -> list[Tensor]:
        """Buffers that training changes, in place, and that are saved with the weights."""
        return []

    def adapted(self, weights: Weights) -> dict[str, Tensor]:
        """Weights of such an encoder as this one has them, all by its own names.

        They may be for another image size, or have a norm at the end that this one does without.
        """
        if self.config.final_norm:
            return dict(weights)
        return {name: x for name, x in weights.items() if not name.startswith("norm.")}
