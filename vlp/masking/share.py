"""Masks that hide one share of the patches of every image."""

from collections.abc import Mapping
from dataclasses import dataclass

from vlp.masking.schedule import Ratio, highest_ratio, is_constant, lowest_ratio
from vlp.masking.strategy import MaskStrategy, visible_count


@dataclass(frozen=True, kw_only=True)
class ShareMask(MaskStrategy):
    """Hides as many patches of every image, as a single setting says; what it chooses is its subclass's."""

    mask_ratio: Ratio = 0.5
    """Share of patches hidden; a schedule makes it progressive."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        return {"mask_ratio": self.mask_ratio}

    @property
    def is_exact(self) -> bool:
        return is_constant(self.mask_ratio)

    def counts(self, num_patches: int) -> Mapping[str, int]:
        hidden = num_patches - self.num_visible(num_patches)
        return {"mask_ratio": hidden} if is_constant(self.mask_ratio) else {}

    def hides_any(self, num_patches: int) -> bool:
        return self.visible_at(num_patches, highest_ratio(self.mask_ratio)) < num_patches

    def num_visible(self, num_patches: int) -> int:
        return self.visible_at(num_patches, lowest_ratio(self.mask_ratio))

    def visible_at(self, num_patches: int, mask_ratio: float) -> int:
        """Patches of an image that a mask ratio leaves, of so many: at least 1."""
        return visible_count(num_patches, mask_ratio)
