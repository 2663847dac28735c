"""No masking, as in CLIP (arXiv:2103.00020) and SuperClass (arXiv:2411.03313)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.masking.strategy import STRATEGIES, MaskInputs, MaskStrategy


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class NoMask(MaskStrategy):
    """Hides nothing."""

    name: Literal["none"] = "none"
    formula: ClassVar[str] = "M = {}"

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        return torch.zeros(inputs.num_images, inputs.num_patches, dtype=torch.bool, device=inputs.device)

    def num_visible(self, num_patches: int) -> int:
        return num_patches
