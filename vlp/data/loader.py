"""Shards to the batches of one worker."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlp.batch import Batch
from vlp.data.augmentation import augment, draw_augmentation
from vlp.data.config import DataConfig
from vlp.data.order import Draw
from vlp.data.shards import ShardSet
from vlp.data.transforms import EncodedImage, center_crop, decode, to_tensor
from vlp.normalization import Normalization, normalize
from vlp.tokenizers import Tokenizer


class TrainingPairs(Dataset[tuple[Tensor, str]]):
    """A random view of an image with one of its captions, chosen by a `Draw`."""

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
        captions = self.shards.captions(draw.index)
        caption = captions[rng.integers(len(captions))]
        encoded = EncodedImage(self.shards.image_bytes(draw.index))
        augmentation = draw_augmentation(encoded.size, self.config, rng)
        image = augment(encoded, augmentation, size=self.image_size, interpolation=self.config.interpolation)
        return image, caption


@dataclass(frozen=True)
class Collate:
    """Samples to a `Batch`; images stay bytes until `to_device`, to keep the copies between workers small."""

    tokenizer: Tokenizer

    def __call__(self, samples: Sequence[tuple[Tensor, str]]) -> Batch:
        images, captions = zip(*samples, strict=True)
        pixels = torch.stack([image.permute(1, 2, 0) for image in images])  # as they lie in memory
        return Batch(pixels.permute(0, 3, 1, 2), *self.tokenizer.encode(captions))


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
