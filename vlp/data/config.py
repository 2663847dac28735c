"""What a run is trained on, and how its images are augmented."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from vlp.core.config import AtLeast, StrictConfig, Within, naming
from vlp.core.normalization import Normalization
from vlp.shards.choice import Condition, Where
from vlp.shards.storage.address import AnyFolder, open_folder
from vlp.shards.storage.folder import Folder

Interpolation = Literal["bicubic", "bilinear"]


def _check_where(config: "MixedShards | DataConfig") -> None:
    with naming("where: "):
        for text in config.where:
            Condition.parse(text)
    if config.selections and not config.where:
        raise ValueError(
            f"selections: {config.selections[0]} takes no sample by itself; set where, such as [kept==true]"
        )


@dataclass(frozen=True, kw_only=True)
class MixedShards(StrictConfig):
    """A further set of shards."""

    shards: AnyFolder
    """Folder that `vlp download` made, or its address in an object store."""
    where: tuple[str, ...] = ()
    """As `data.where`, of this set."""
    selections: tuple[AnyFolder, ...] = ()
    """As `data.selections`, of this set."""
    share: Annotated[float, Within(0, 1, "()")]
    """Share of the samples of every batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_where(self)

    @property
    def chosen(self) -> Where:
        """Which of its samples are taken."""
        return Where(self.where, self.selections)


@dataclass(frozen=True, kw_only=True)
class DataConfig(StrictConfig):
    """What a run is trained on, and how its images are augmented. Defaults are CLIP's on CC12M."""

    shards: AnyFolder = open_folder("shards")
    """Folder that `vlp download` made, or its address in an object store."""
    where: tuple[str, ...] = ()
    """Conditions that samples have to meet, all of them, on a column of the index or of a selection, such as
    kept==true, similarity>=0.28 or original_width>=256; none takes every sample."""
    selections: tuple[AnyFolder, ...] = ()
    """Folders that `vlp data balance` or `vlp data score` made of `shards`, whose columns `where` reads."""
    mix: tuple[MixedShards, ...] = ()
    """Further sets, each with its share of every batch; `shards` has the rest."""
    shuffle: Literal["full", "block"] = "full"
    """`full` makes every order equally likely; `block` reads few shards at a time: for large sets."""
    shuffle_window: Annotated[int, AtLeast(1)] = 16
    """Shards whose samples `block` mixes; so many indexes are in memory."""
    max_unreadable_share: Annotated[float, Within(0, 1, "[)")] = 0.01
    """Share of the samples that may be unreadable and are replaced, before a run stops."""
    document_frequency: Path | None = None
    """Table that `vlp docfreq` made; needed for SuperClass with offline IDF and the text mask `frequency`."""
    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Share of an image's area that a random crop keeps; its aspect ratio is between 3/4 and 4/3."""
    interpolation: Interpolation = "bicubic"
    """Filter that resizes the crop."""
    horizontal_flip_prob: Annotated[float, Within(0, 1)] = 0.0
    """Share of the images that are mirrored."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strength of the changes of brightness, contrast, saturation and hue; hue at most 0.5."""
    color_jitter_prob: Annotated[float, Within(0, 1)] = 0.0
    """Share of the images whose colours are changed."""
    gray_scale_prob: Annotated[float, Within(0, 1)] = 0.0
    """Share of the images that lose their colours."""
    rand_augment: str | None = None
    """RandAugment in timm's words, such as rand-m9-mstd0.5-inc1; None for none."""
    erasing_prob: Annotated[float, Within(0, 1)] = 0.0
    """Share of the images of which a box is filled with noise."""
    normalization: Normalization = "clip"
    """Whose mean and deviation pixels are brought to."""

    @property
    def folders(self) -> tuple[Folder, ...]:
        """Every set of shards, the main one first."""
        return (self.shards, *(other.shards for other in self.mix))

    @property
    def wheres(self) -> tuple[Where, ...]:
        """Which samples of each of `folders` are taken."""
        return (Where(self.where, self.selections), *(other.chosen for other in self.mix))

    @property
    def shares(self) -> tuple[float, ...]:
        """The share that each of `folders` has of every batch."""
        shares = tuple(other.share for other in self.mix)
        return (1 - sum(shares), *shares)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_where(self)
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale must be two shares of the area, 0 < low <= high <= 1, got {low, high}"
            )
        if sum(other.share for other in self.mix) >= 1:
            raise ValueError("the shares of mix must sum to less than 1: the rest is for `shards`")
        if self.rand_augment is not None:
            from vlp.data.recipes import check_rand_augment

            with naming("rand_augment: "):
                check_rand_augment(self.rand_augment)
        if min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise ValueError(
                f"color_jitter must not be negative, and its hue at most 0.5, got {self.color_jitter}"
            )
