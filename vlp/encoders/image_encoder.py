"""What an image encoder is: images and a choice of patches to vectors."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from vlp.core.config import AtLeast, StrictConfig
from vlp.core.registry import Registry
from vlp.masking import MaskInputs, Slots
from vlp.masking.strategy import View

IMAGE_ENCODERS = Registry()


class TimmModel(NamedTuple):
    """A model of timm: `timm.create_model(architecture, **arguments)`."""

    architecture: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig(ABC, StrictConfig):
    """The sizes of an image encoder; `build` makes its module."""

    name: str
    """Which encoder it is."""
    image_size: Annotated[int, AtLeast(1)] = 224
    """Side of the square input, in pixels."""
    patch_size: Annotated[int, AtLeast(1)] = 16
    """Side of a patch, in pixels."""

    can_drop_patches: ClassVar[bool] = True
    """Whether hidden patches may be left out of the input; if not, a mask token has to take their places."""
    views: ClassVar[frozenset[View]] = frozenset({"tokens"})
    """What it shows to masks beside the pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )

    @property
    def num_patches(self) -> int:
        """N."""
        return (self.image_size // self.patch_size) ** 2

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

        An encoder that cannot drop patches takes no slots, and its first state is the mean of the others.
        """

    @abstractmethod
    def mask_inputs(self, images: Tensor) -> MaskInputs:
        """The view of (B, 3, H, W) images that masking strategies work on."""
