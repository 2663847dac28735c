"""Shards to the batches of one worker."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlp.batch import Batch
from vlp.config import StrictConfig
from vlp.data.order import Draw
from vlp.data.shards import ShardSet
from vlp.data.transforms import center_crop, decode, random_resized_crop, to_tensor
from vlp.normalization import Normalization, normalize
from vlp.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class DataConfig(StrictConfig):
    """What a run is trained on, and how its images are cropped. Defaults are CLIP's on CC12M."""

    shards: Path = Path("shards")
    """Folder that `vlp download` made."""
    document_frequency: Path | None = None
    """Table that `vlp docfreq` made; needed for SuperClass with offline IDF."""
    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Share of an image's area that a random crop keeps."""
    normalization: Normalization = "clip"

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"crop_scale must be two shares of the area, 0 < low <= high <= 1, got {low, high}"
            )


class TrainingPairs(Dataset[tuple[Tensor, str]]):
    """A random crop of an image with one of its captions, chosen by a `Draw`."""

    def __init__(self, shards: ShardSet, config: DataConfig, *, image_size: int, seed: int) -> None:
        self.shards = shards
        self.config = config
        self.image_size = image_size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, str]:
        """(3, H, W) uint8 and a caption."""
        rng = draw.rng(self.seed)
        image = decode(self.shards.image_bytes(draw.index))
        crop = random_resized_crop(image, self.image_size, scale=self.config.crop_scale, rng=rng)
        captions = self.shards.captions(draw.index)
        return to_tensor(crop), captions[rng.integers(len(captions))]


@dataclass(frozen=True)
class Collate:
    """Samples to a `Batch`; images stay bytes until `to_device`, to keep the copies between workers small."""

    tokenizer: Tokenizer

    def __call__(self, samples: Sequence[tuple[Tensor, str]]) -> Batch:
        images, captions = zip(*samples, strict=True)
        return Batch(torch.stack(images), *self.tokenizer.encode(captions))


def load_batches(
    pairs: TrainingPairs,
    draws: Iterable[list[Draw]],
    tokenizer: Tokenizer,
    *,
    num_workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """The batches that `draws` asks for, in its order, normalized and on the device."""
    loader = DataLoader(
        pairs,
        batch_sampler=draws,  # pyright: ignore[reportArgumentType]
        collate_fn=Collate(tokenizer),
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    for images, tokens, lengths in loader:
        images, tokens, lengths = (x.to(device, non_blocking=True) for x in (images, tokens, lengths))
        yield Batch(normalize(images, pairs.config.normalization), tokens, lengths)


def load_images(encoded: Sequence[bytes], *, image_size: int, normalization: Normalization) -> Tensor:
    """The middle squares of whole images, for evaluation: (B, 3, H, W)."""
    images = torch.stack([to_tensor(center_crop(decode(image), image_size)) for image in encoded])
    return normalize(images, normalization)
