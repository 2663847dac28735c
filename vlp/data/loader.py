"""Shards to the batches of one worker."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlp.core.batch import Batch
from vlp.core.messages import one_line
from vlp.core.normalization import Normalization, normalize
from vlp.data.augmentation import augment, draw_augmentation
from vlp.data.config import DataConfig
from vlp.data.order import BlockShuffle, Draw, FullShuffle, Order
from vlp.data.prefetch import fetch_ahead
from vlp.data.quarantine import Quarantine, Unreadable, UnreadableDataError, substitutes
from vlp.data.transforms import EncodedImage, center_crop, decode, to_tensor
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.cache import ShardCache
from vlp.shards.storage.folder import UnreachableError
from vlp.tokenizers import Tokenizer


class Pair(NamedTuple):
    """An image with one of its captions, or an empty one if it has none."""

    image: Tensor
    """(3, H, W) uint8."""
    caption: str
    unreadable: tuple[Unreadable, ...] = ()
    """The samples that this pair stands in for."""


class Source(NamedTuple):
    """Where a pair came from."""

    shard: str
    key: str
    caption: str


def open_shards(
    config: DataConfig,
    *,
    captioned: bool,
    sizes: Sequence[Sequence[int]] | None = None,
    cache: ShardCache | None = None,
) -> ShardSet:
    """Every set of shards of a run, as one; without the images that have no caption, if it needs captions.

    Args:
        sizes: the number of samples of every shard of each folder, where it was counted before.

    Raises:
        ValueError: a folder holds no shards, or no such sample.
    """
    max_indexes = None if config.shuffle == "full" else 2 * config.shuffle_window
    return ShardSet(
        *config.folders,
        wheres=config.wheres,
        captioned=captioned,
        sizes=sizes,
        cache=cache,
        max_indexes=max_indexes,
    )


def data_order(shards: ShardSet, config: DataConfig, *, seed: int, batch_size: int) -> Order:
    """The samples of every batch of a run."""
    sets = [
        FullShuffle(sizes) if config.shuffle == "full" else BlockShuffle(sizes, window=config.shuffle_window)
        for sizes in shards.shard_sizes
    ]
    return Order(sets, config.shares, seed=seed, batch_size=batch_size)


class TrainingPairs(Dataset[Pair]):
    """A random view of an image with one of its captions, chosen by a `Draw`."""

    def __init__(self, shards: ShardSet, config: DataConfig, *, image_size: int, seed: int) -> None:
        self.shards = shards
        self.config = config
        self.image_size = image_size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, draw: Draw) -> Pair:
        """The pair of a draw, or of its first substitute that can be read.

        Raises:
            UnreadableDataError: none can be.
            UnreachableError: the store did not answer for too long.
        """
        unreadable: list[Unreadable] = []
        for tried in self._tried(draw):
            try:
                return self._read(tried)._replace(unreadable=tuple(unreadable))
            except UnreachableError:  # its store is away: the sample itself may be sound
                raise
            except (ValueError, OSError) as error:
                unreadable.append(self._describe(tried, error))
        shard, key, reason = unreadable[0]
        raise UnreadableDataError(f"{key} in {shard} cannot be read, nor can its substitutes: {reason}")

    def source(self, draw: Draw) -> Source:
        """Where the pair of a draw, or of its first substitute that can be read, comes from."""
        pair = self[draw]
        used = list(self._tried(draw))[len(pair.unreadable)]
        return Source(*self.shards.describe(used.index), pair.caption)

    def _read(self, draw: Draw) -> Pair:
        rng = draw.rng(self.seed)
        captions = self.shards.captions(draw.index)
        caption = captions[rng.integers(len(captions))] if captions else ""
        return Pair(self._augmented(draw, rng), caption)

    def view(self, draw: Draw) -> Tensor:
        """A random view of an image, whatever captions it has: (3, H, W) uint8.

        Raises:
            ValueError, OSError: it cannot be read.
        """
        return self._augmented(draw, draw.rng(self.seed))

    def _augmented(self, draw: Draw, rng: np.random.Generator) -> Tensor:
        encoded = EncodedImage(self.shards.image_bytes(draw.index))
        augmentation = draw_augmentation(encoded.size, self.config, rng)
        return augment(encoded, augmentation, self.config, size=self.image_size)

    def _tried(self, draw: Draw) -> Iterator[Draw]:
        """A draw, and what stands in for it, one after another, where it cannot be read."""
        yield draw
        shard, folder = self.shards.shard_range(draw.index), self.shards.folder_range(draw.index)
        yield from substitutes(draw, seed=self.seed, shard=shard, folder=folder)

    def _describe(self, draw: Draw, error: Exception) -> Unreadable:
        return Unreadable(*self.shards.describe(draw.index), one_line(error))


@dataclass(frozen=True)
class Collate:
    """Samples to a `Batch`; images stay bytes until they are on the device, to keep the copies small."""

    tokenizer: Tokenizer

    def __call__(self, pairs: Sequence[Pair]) -> tuple[Batch, list[Unreadable]]:
        images, captions, unreadable = zip(*pairs, strict=True)
        pixels = torch.stack([image.permute(1, 2, 0) for image in images])  # as they lie in memory
        batch = Batch(pixels.permute(0, 3, 1, 2), *self.tokenizer.encode(captions))
        return batch, [sample for samples in unreadable for sample in samples]


class BatchLoader:
    """The batches that `draws` asks for, in its order, normalized and on the device.

    Args:
        num_workers: processes that read and decode; 0 does it in this one.
    """

    def __init__(
        self,
        pairs: TrainingPairs,
        draws: Iterable[list[Draw]],
        tokenizer: Tokenizer,
        *,
        num_workers: int,
        device: torch.device,
    ) -> None:
        config = pairs.config
        if config.shuffle == "full":
            pairs.shards.read_indexes()
        elif pairs.shards.cache is not None:
            num_shards = config.shuffle_window * len(config.folders)
            draws = fetch_ahead(draws, pairs.shards, num_shards=num_shards)
        self.device = device
        self.normalization: Normalization = config.normalization
        self.quarantine = Quarantine(config.max_unreadable_share)
        """What could not be read so far, and was replaced."""
        self._loader = DataLoader(
            pairs,
            batch_sampler=draws,  # pyright: ignore[reportArgumentType]
            collate_fn=Collate(tokenizer),
            num_workers=num_workers,
            # A process that is forked takes over connections that its parent goes on using.
            multiprocessing_context="spawn" if num_workers and pairs.shards.is_remote else None,
            pin_memory=device.type == "cuda",
        )

    def __iter__(self) -> Iterator[Batch]:
        """Go through the batches.

        Raises:
            UnreadableDataError: too many samples are unreadable.
        """
        try:
            for batch, unreadable in self._loader:
                self.quarantine.add(len(batch.images), unreadable)
                images, tokens, lengths = (x.to(self.device, non_blocking=True) for x in batch[:3])
                yield Batch(normalize(images, self.normalization), tokens, lengths)
        except UnreadableDataError as error:  # a process that loads adds its traceback to the message
            raise UnreadableDataError(str(error).strip().split("UnreadableDataError: ")[-1]) from None


def middle_squares(
    shards: ShardSet, indices: Iterable[int], *, image_size: int, count: int | None = None
) -> Tensor:
    """The middle squares of the first `count` of some samples that can be read: (B, 3, H, W) uint8.

    Raises:
        UnreadableDataError: none of them can.
    """

    def middle(index: int) -> Tensor:
        return to_tensor(center_crop(decode(shards.image_bytes(index)), image_size))

    return _readable(shards, indices, middle, count=count)


def training_views(pairs: TrainingPairs, indices: Iterable[int]) -> Tensor:
    """A view, as training augments them, of each of some samples that can be read: (B, 3, H, W) uint8.

    Raises:
        UnreadableDataError: none of them can.
    """
    return _readable(pairs.shards, indices, lambda index: pairs.view(Draw(index, 0)))


def _readable(
    shards: ShardSet, indices: Iterable[int], view: Callable[[int], Tensor], *, count: int | None = None
) -> Tensor:
    """The views of the first `count` of some samples that can be read: (B, 3, H, W) uint8."""
    views: list[Tensor] = []
    problem = "there are none"
    for index in indices:
        try:
            views.append(view(index))
        except UnreachableError:
            raise
        except (ValueError, OSError) as error:
            shard, key = shards.describe(index)
            problem = f"the last is {key} in {shard}: {one_line(error)}"
        if len(views) == count:
            break
    if not views:
        raise UnreadableDataError(f"none of the samples that were looked at can be read; {problem}")
    return torch.stack(views)


def load_images(encoded: Sequence[bytes], *, image_size: int, normalization: Normalization) -> Tensor:
    """The middle squares of whole images, for evaluation: (B, 3, H, W)."""
    images = torch.stack([to_tensor(center_crop(decode(image), image_size)) for image in encoded])
    return normalize(images, normalization)
