"""I-JEPA's blocks (arXiv:2301.08243, section 3 and appendix A) as a mask."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor

from vlp.core.config import AtLeast, Within
from vlp.masking.schedule import Ratio, ratio_at
from vlp.masking.share import ShareMask
from vlp.masking.strategy import (
    STRATEGIES,
    MaskInputs,
    grid_side,
    hide_highest,
    uniform_noise,
)

Range = tuple[float, float]


@STRATEGIES.register
@dataclass(frozen=True, kw_only=True)
class MultiBlockMask(ShareMask):
    """Hides target blocks, then what lies outside of a large context block, and then any other patches.

    Where the blocks hide more than the ratio asks for, some of their patches stay. So every image shows as
    many, where I-JEPA cuts all images of a batch to the one that shows least.
    """

    name: Literal["multi_block"] = "multi_block"
    formula: ClassVar[str] = "M = r N patches: of the targets, then from outside of the context"
    paper: ClassVar[str] = "2301.08243"
    mask_ratio: Ratio = 0.55
    """Share of patches hidden; a schedule makes it progressive. 0.55 is what the blocks hide in the mean."""
    num_targets: Annotated[int, AtLeast(1)] = 4
    """Target blocks of an image; they may overlap."""
    target_scale: Annotated[Range, Within(0, 1, "(]")] = (0.15, 0.2)
    """Share of the image that a target has; drawn once for all targets of a batch."""
    target_aspect: Range = (0.75, 1.5)
    """A target's height over its width; drawn once for all targets of a batch."""
    context_scale: Annotated[Range, Within(0, 1, "(]")] = (0.85, 1.0)
    """Share of the image that the square context has; drawn once for a batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("target_scale", "target_aspect", "context_scale"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(f"{key} must be two numbers, 0 < low <= high, got {low, high}")

    def __call__(
        self, inputs: MaskInputs, *, progress: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        visible = self.visible_at(inputs.num_patches, ratio_at(self.mask_ratio, progress))
        targets, context = self.blocks(inputs, generator)
        order = 2 * targets.any(dim=1) + (~targets.any(dim=1) & ~context)
        return hide_highest(order + uniform_noise(inputs, generator), visible)

    def blocks(self, inputs: MaskInputs, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """The targets and the context of each image: (B, T, N) bool, (B, N) bool."""
        side = grid_side(inputs.num_patches)
        # Sizes are equal on all workers, whose generators are seeded alike; places are those of each image.
        scale, aspect, context = torch.rand(3, device=inputs.device, generator=generator)
        places = uniform_noise(inputs, generator, 2 * (self.num_targets + 1)).unflatten(1, (-1, 2))
        size = block_size(within(scale, self.target_scale), within(aspect, self.target_aspect), side)
        square = block_size(within(context, self.context_scale), torch.ones_like(context), side)
        return block_at(places[:, 1:], size, side), block_at(places[:, :1], square, side)[:, 0]


def within(noise: Tensor, ends: Range) -> Tensor:
    """Numbers in [0, 1) to numbers in a range."""
    low, high = ends
    return low + noise * (high - low)


def block_size(scale: Tensor, aspect: Tensor, side: int) -> Tensor:
    """Rows and columns of a block, in patches: (), () -> (2,)."""
    area = (scale * side**2).floor()
    return torch.stack([area * aspect, area / aspect]).sqrt().round().clamp(1, side)


def block_at(noise: Tensor, size: Tensor, side: int) -> Tensor:
    """Blocks at places drawn for them: (B, T, 2), (2,) -> (B, T, N) bool."""
    corner = (noise * (side - size + 1)).floor()
    place = torch.arange(side, device=noise.device)
    inside = (place >= corner[..., None]) & (place < (corner + size)[..., None])  # (B, T, 2, side)
    return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).flatten(2)
