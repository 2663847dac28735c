"""What a run is trained on, and how its images are augmented."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlp.config import StrictConfig
from vlp.normalization import Normalization

Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(StrictConfig):
    """What a run is trained on, and how its images are augmented. Defaults are CLIP's on CC12M."""

    shards: Path = Path("shards")
    """Folder that `vlp download` made."""
    document_frequency: Path | None = None
    """Table that `vlp docfreq` made; needed for SuperClass with offline IDF."""
    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Share of an image's area that a random crop keeps; its aspect ratio is between 3/4 and 4/3."""
    interpolation: Interpolation = "bicubic"
    """Filter that resizes the crop."""
    horizontal_flip_prob: float = 0.0
    """Share of the images that are mirrored."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strength of the changes of brightness, contrast, saturation and hue; hue at most 0.5."""
    color_jitter_prob: float = 0.0
    """Share of the images whose colours are changed."""
    gray_scale_prob: float = 0.0
    """Share of the images that lose their colours."""
    normalization: Normalization = "clip"

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale must be two shares of the area, 0 < low <= high <= 1, got {low, high}"
            )
        for key in ("horizontal_flip_prob", "color_jitter_prob", "gray_scale_prob"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} must be in [0, 1], got {getattr(self, key)}")
        if min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise ValueError(
                f"color_jitter must not be negative, and its hue at most 0.5, got {self.color_jitter}"
            )
