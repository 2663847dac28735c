"""What targets share whose classes are told by colours (SimMIM, arXiv:2111.09886, section 3.4)."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from vlp.core.config import AtLeast
from vlp.core.normalization import Normalization, denormalize, normalize
from vlp.core.registry import Registry
from vlp.targets.target import RebuildTargetConfig, shrink

CODED_TARGETS = Registry()


@dataclass(frozen=True, kw_only=True)
class ClassTargetConfig(RebuildTargetConfig):
    """A target whose classes are told by colours, whatever the images were normalized by."""

    normalization: Normalization = "imagenet"
    """How the images were normalized; as `data.normalization`."""

    def check_normalization(self, normalization: Normalization) -> None:
        if normalization != self.normalization:
            raise ValueError(
                f"normalization is {self.normalization} and data.normalization {normalization}: the target's "
                "classes are colours; set both alike"
            )

    def colors(self, images: Tensor, side: int) -> Tensor:
        """The images' colours, averaged to a smaller map: (B, 3, H, W) -> (B, 3, side, side) in [-1, 1]."""
        return 2 * denormalize(shrink(images, side), self.normalization) - 1

    def images(self, colors: Tensor) -> Tensor:
        """The inverse of `colors`, for one side."""
        return normalize(255 * (colors + 1) / 2, self.normalization)


@dataclass(frozen=True, kw_only=True)
class CodedTargetConfig(ClassTargetConfig):
    """A target whose classes are the codes nearest to vectors; `vlp fit-codes` finds codes that fit."""

    num_codes: Annotated[int, AtLeast(2)]
    """K, classes."""
    codes: Path | None = None
    """.npy file of (num_codes, P) codes."""

    vector_size: ClassVar[int]
    """P, numbers per code."""

    @abstractmethod
    def vectors(self, images: Tensor) -> Tensor:
        """What the codes are compared to, place by place: (B, 3, H, W) -> (B, S^2, P)."""

    @abstractmethod
    def default_codes(self) -> Tensor:
        """Codes where no file is given: (num_codes, P); a ValueError if there are none of this number."""

    @property
    def files(self) -> Mapping[str, Path]:
        return {"codes": self.codes} if self.codes else {}

    def check_files(self) -> None:
        self.read_codes()

    def read_codes(self) -> Tensor:
        """The codes: (num_codes, P) float32.

        Raises:
            ValueError: the file is missing, is not a .npy file, or holds something else; or none is given and
                there are no default codes of this number.
        """
        if self.codes is None:
            return self.default_codes()
        if not self.codes.is_file():
            raise ValueError(f"codes: no such file: {self.codes}; make one with `vlp fit-codes`")
        try:
            codes = torch.from_numpy(np.load(self.codes)).float()
        except (ValueError, TypeError, EOFError) as error:
            raise ValueError(f"codes: {self.codes} is not a .npy file of numbers") from error
        expected = (self.num_codes, self.vector_size)
        if tuple(codes.shape) != expected:
            raise ValueError(f"codes: {self.codes} holds {tuple(codes.shape)} numbers, not {expected}")
        if not codes.abs().max() <= 1.001:
            raise ValueError(f"codes: {self.codes} holds numbers outside of [-1, 1]")
        return codes
