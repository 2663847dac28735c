"""Loaded batches are a pure function of the draws, in whatever process they are made."""

from pathlib import Path

import pytest
import torch

from vlp.core.normalization import MEAN_STD
from vlp.data.config import DataConfig, MixedShards
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, load_images, open_shards
from vlp.data.order import Draw, rank_batches
from vlp.data.transforms import center_crop, decode, to_tensor
from vlp.objectives import Batch
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.cache import ShardCache
from vlp.tokenizers.clip_bpe import ClipBPEConfig


def pairs(shards, seed: int = 0, **settings) -> TrainingPairs:
    config = DataConfig(shards=shards.folder, crop_scale=(0.3, 1.0), **settings)
    return TrainingPairs(open_shards(config, captioned=True), config, image_size=24, seed=seed)


def load(dataset: TrainingPairs, steps: range, *, num_workers: int = 0) -> BatchLoader:
    order = data_order(dataset.shards, dataset.config, seed=0, batch_size=5)
    draws = rank_batches(order, steps=steps, rank=0, world_size=1)
    tokenizer = ClipBPEConfig(context_length=12).build()
    return BatchLoader(dataset, draws, tokenizer, num_workers=num_workers, device=torch.device("cpu"))


def batches(shards, steps: range, *, num_workers: int = 0) -> list[Batch]:
    return list(load(pairs(shards), steps, num_workers=num_workers))


def test_a_draw_gives_one_pair_whatever_was_drawn_before(shards) -> None:
    used, fresh = pairs(shards), pairs(shards)
    for index in (3, 11, 3):
        used[Draw(index, 0)]
    torch.manual_seed(5)  # no global generator matters
    for index in range(len(fresh)):
        (image, caption, _), (again, same, _) = fresh[Draw(index, 1)], used[Draw(index, 1)]
        assert torch.equal(image, again)
        assert caption == same


@pytest.mark.parametrize("changed", ["epoch", "seed"])
def test_another_epoch_and_another_seed_crop_every_image_anew(shards, changed: str) -> None:
    one = pairs(shards)
    other, epoch = (one, 1) if changed == "epoch" else (pairs(shards, seed=1), 0)
    for index in range(len(one)):
        assert not torch.equal(one[Draw(index, 0)][0], other[Draw(index, epoch)][0])


def test_every_caption_of_an_image_is_drawn_equally_often(shards) -> None:
    dataset = pairs(shards)
    index = next(i for i, texts in enumerate(shards.captions) if len(texts) == 3)
    drawn = [dataset[Draw(index, epoch)][1] for epoch in range(600)]
    for caption in shards.captions[index]:
        assert abs(drawn.count(caption) - 200) < 5 * (600 * 2 / 9) ** 0.5


def test_processes_that_load_give_the_batches_of_one_that_does_not(shards) -> None:
    alone, with_workers = batches(shards, range(7)), batches(shards, range(7), num_workers=2)
    assert len(alone) == len(with_workers) == 7
    for one, other in zip(alone, with_workers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


def test_a_run_that_resumes_loads_what_an_undisturbed_one_loads(shards) -> None:
    for one, other in zip(batches(shards, range(7))[4:], batches(shards, range(4, 7)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


def test_a_batch_is_normalized_pixels_and_the_tokens_of_its_captions(shards) -> None:
    (batch,) = batches(shards, range(1))
    dataset = pairs(shards)
    order = data_order(dataset.shards, dataset.config, seed=0, batch_size=5)
    (draws,) = rank_batches(order, steps=range(1), rank=0, world_size=1)
    tokenizer = ClipBPEConfig(context_length=12).build()
    mean, std = (torch.tensor(values)[:, None, None] for values in MEAN_STD["clip"])
    assert batch.images.shape == (5, 3, 24, 24)
    for row, draw in enumerate(draws):
        image, caption, _ = dataset[draw]
        tokens, lengths = tokenizer.encode([caption])
        torch.testing.assert_close(batch.images[row] * std + mean, image / 255)
        assert batch.lengths[row] == lengths[0]
        assert torch.equal(batch.tokens[row, : lengths[0]], tokens[0])


def test_images_for_evaluation_are_the_normalized_middle_squares(shards) -> None:
    images = load_images(shards.images[:4], image_size=16, normalization="imagenet")
    mean, std = (torch.tensor(values)[:, None, None] for values in MEAN_STD["imagenet"])
    expected = torch.stack([to_tensor(center_crop(decode(data), 16)) for data in shards.images[:4]])
    torch.testing.assert_close(images * std + mean, expected / 255)


@pytest.mark.parametrize(
    "settings", [{"shuffle": "block", "shuffle_window": 2}, {"shuffle": "block", "shuffle_window": 1}, {}]
)
def test_batches_depend_on_seed_and_step_alone(shards, tmp_path: Path, settings: dict) -> None:
    """Not on the processes that load, where a run resumed, the number of workers, or a cache."""
    mix = (MixedShards(shards=shards.folder, share=0.4),)
    for config in (settings, {**settings, "mix": mix}):
        whole = list(load(pairs(shards, **config), range(9)))
        for other in (
            load(pairs(shards, **config), range(4, 9), num_workers=2),
            load(with_cache(pairs(shards, **config), tmp_path), range(4, 9), num_workers=1),
        ):
            for one, same in zip(whole[4:], other, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one[:3], same[:3], strict=True))


def with_cache(dataset: TrainingPairs, folder: Path) -> TrainingPairs:
    cached = open_shards(
        dataset.config, captioned=True, cache=ShardCache(folder=folder / "cache", gigabytes=0.001)
    )
    return TrainingPairs(cached, dataset.config, image_size=24, seed=0)


def test_a_mixture_is_one_set_whose_folders_follow_one_another(shards) -> None:
    dataset = pairs(shards, mix=(MixedShards(shards=shards.folder, share=0.4),))
    assert len(dataset) == 32
    assert [dataset.shards.image_bytes(i) for i in range(32)] == shards.images * 2
    assert [dataset.shards.folder_range(i) for i in (0, 15, 16, 31)] == [range(16)] * 2 + [range(16, 32)] * 2
    digest = ShardSet(shards.folder).digest
    assert dataset.shards.digest == f"{digest}+{digest}"


def test_block_shuffling_keeps_the_indexes_of_few_shards_in_memory(shards) -> None:
    read = ShardSet(shards.folder, max_indexes=2)
    for i in (0, 7, 15, 3, 9):
        assert read.captions(i) == shards.captions[i]
        assert len(read._indexes) <= 2
