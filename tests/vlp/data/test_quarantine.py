"""What cannot be read is replaced by the same sample everywhere, counted, and fatal only where it is much."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from vlp.data.config import DataConfig
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, open_shards
from vlp.data.order import Draw, rank_batches
from vlp.data.quarantine import MAX_KEPT, Quarantine, Unreadable, UnreadableDataError, substitutes
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.cache import ShardCache
from vlp.tokenizers.clip_bpe import ClipBPEConfig

ROWS = {"00000": range(6), "00001": range(6, 8), "00003": range(8, 16)}  # samples of the fixture's shards


@pytest.fixture
def folder(shards, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards.folder, tmp_path / "shards"))


def break_image(folder: Path, shard: str, row: int, *, content: bytes = b"no image") -> str:
    """Overwrite the beginning of an image; returns its key."""
    table = pq.read_table(folder / f"{shard}.parquet").to_pylist()
    sample = [row for row in table if row["status"] == "success"][row]
    with (folder / f"{shard}.tar").open("r+b") as tar:
        tar.seek(sample["image_offset"])
        tar.write(content)
    return sample["key"]


def pairs(folder: Path, **settings) -> TrainingPairs:
    config = DataConfig(shards=open_folder(folder), **settings)
    return TrainingPairs(open_shards(config, captioned=True), config, image_size=24, seed=0)


def loader(folder: Path, *, num_workers: int = 0, steps: int = 9, **settings) -> BatchLoader:
    dataset = pairs(folder, **settings)
    order = data_order(dataset.shards, dataset.config, seed=0, batch_size=5)
    return BatchLoader(
        dataset,
        rank_batches(order, steps=range(steps), rank=0, world_size=1),
        ClipBPEConfig(context_length=12).build(),
        num_workers=num_workers,
        device=torch.device("cpu"),
    )


def test_a_broken_image_is_replaced_by_a_sample_of_its_shard_and_reported(folder: Path, shards) -> None:
    key = break_image(folder, "00000", 2)
    dataset = pairs(folder)
    pair = dataset[Draw(2, 0)]
    assert pair.caption in [text for i in ROWS["00000"] if i != 2 for text in shards.captions[i]]
    assert {sample.key for sample in pair.unreadable} == {key}
    assert pair.unreadable[0].shard == str(folder / "00000.tar")
    assert "image" in pair.unreadable[0].reason
    for index in range(16):
        assert index == 2 or not dataset[Draw(index, 0)].unreadable


@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_any_number_of_workers_replaces_by_the_same_samples(folder: Path, shuffle: str) -> None:
    for shard, row in (("00000", 2), ("00003", 0), ("00003", 5)):
        break_image(folder, shard, row)
    loaders = [
        loader(folder, num_workers=n, shuffle=shuffle, shuffle_window=2, max_unreadable_share=0.3)
        for n in (0, 2)
    ]
    for one, other in zip(*loaders, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    one, other = (loader.quarantine for loader in loaders)
    assert one == other
    assert one.num_samples == 45
    assert len(one.samples) == 3
    assert one.num_replaced >= 6


def test_a_cache_changes_nothing_where_a_shard_differs_from_its_checksum(
    folder: Path, tmp_path: Path
) -> None:
    key = break_image(folder, "00003", 1)
    plain, cached = pairs(folder), pairs(folder)
    cached.shards.cache = ShardCache(folder=tmp_path / "cache")
    with pytest.warns(UserWarning, match=r"00003\.tar: .*checksum differs; it is read where it lies"):
        found = [cached[Draw(index, 0)] for index in range(16)]
    for index, other in enumerate(found):
        one = plain[Draw(index, 0)]
        assert torch.equal(one.image, other.image)
        assert one[1:] == other[1:]
        assert [sample.key for sample in other.unreadable] == [key] * (index == 9)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


def test_draws_of_one_sample_in_two_epochs_have_different_substitutes(folder: Path) -> None:
    break_image(folder, "00003", 3)
    dataset = pairs(folder)
    assert len({dataset[Draw(11, epoch)].caption for epoch in range(20)}) > 3


def test_substitutes_are_spread_over_the_shard_and_then_over_the_folder() -> None:
    drawn = np.array(
        [
            [draw.index for draw in substitutes(Draw(5, epoch), seed=0, shard=range(4, 8), folder=range(100))]
            for epoch in range(400)
        ]
    )
    assert set(drawn[:, 0]) == set(range(4, 8))
    assert abs(drawn[:, -1].mean() - 49.5) < 5 * (10_000 / 12 / 400) ** 0.5


def test_too_many_are_fatal_in_one_line_that_names_the_last() -> None:
    quarantine = Quarantine(max_share=0.01)
    broken = Unreadable("shards/00007.tar", "000070003", "image file is truncated")
    for _ in range(100):
        quarantine.add(10, [broken])
    with pytest.raises(UnreadableDataError) as failure:
        quarantine.add(10, [broken])
    message = str(failure.value)
    assert "\n" not in message
    for part in ("101 of 1,010", "max_unreadable_share 0.01", *broken):
        assert part in message


def test_the_samples_that_are_remembered_are_bounded_and_all_are_counted() -> None:
    quarantine = Quarantine(max_share=0.5)
    for i in range(3 * MAX_KEPT):
        quarantine.add(4, [Unreadable("00000.tar", str(i), "broken"), Unreadable("00000.tar", "x", "broken")])
    assert (quarantine.num_samples, quarantine.num_replaced) == (12 * MAX_KEPT, 6 * MAX_KEPT)
    assert {sample.key for sample in quarantine.samples} == {"x", *map(str, range(MAX_KEPT - 1))}


def test_none_is_tolerated_where_the_share_is_zero(folder: Path) -> None:
    key = break_image(folder, "00003", 1)
    with pytest.raises(UnreadableDataError, match=key):
        list(loader(folder, max_unreadable_share=0.0))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_set_of_which_nothing_can_be_read_stops_in_one_line(folder: Path, num_workers: int) -> None:
    for tar in folder.glob("*.tar"):
        tar.write_bytes(b"")
    with pytest.raises(UnreadableDataError, match=r"^\d+ in .*tar ends before") as failure:
        list(loader(folder, num_workers=num_workers))
    assert "\n" not in str(failure.value)


def damages() -> Iterator:
    rng = np.random.default_rng(0)
    for name in ("00003.tar", "00003.parquet"):
        yield name, lambda content: b""
        yield name, lambda content: content[: len(content) // 3]
        yield name, lambda content: bytes(len(content))
        for _ in range(12):
            yield name, lambda content, rng=rng: flip(content, rng)
        yield name, None


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    pixels = np.frombuffer(content, dtype=np.uint8).copy()
    pixels[rng.integers(len(pixels), size=len(pixels) // 50)] = rng.integers(256)
    return pixels.tobytes()


@pytest.mark.parametrize(("name", "damage"), list(damages()))
def test_a_damaged_shard_is_replaced_or_reported_and_never_a_crash(folder: Path, name: str, damage) -> None:
    file = folder / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    dataset = pairs(folder)
    for index in range(16):
        pair = dataset[Draw(index, 0)]
        assert pair.image.shape == (3, 24, 24)
        assert index in ROWS["00003"] or not pair.unreadable


@pytest.mark.parametrize("content", ["", "{", "[]", '{"shards": 3}', '{"shards": [{}]}'])
def test_a_damaged_manifest_is_an_error_of_one_line(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json is broken") as failure:
        pairs(folder)
    assert "\n" not in str(failure.value)


def test_an_index_that_lies_about_its_shard_is_reported(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][3]["successes"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    pair = pairs(folder)[Draw(10, 0)]
    assert "index" in pair.unreadable[0].reason
    assert os.path.basename(pair.unreadable[0].shard) == "00003.tar"
