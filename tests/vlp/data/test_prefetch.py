"""Looking ahead changes no batch, and has the shards of the next block copied before they are needed."""

import time
from pathlib import Path

import pytest

from vlp.data.order import BlockShuffle, Draw, Order, rank_batches
from vlp.data.prefetch import fetch_ahead
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.cache import ShardCache


@pytest.fixture
def cached(shards, tmp_path: Path) -> ShardSet:
    return ShardSet(shards.folder, cache=ShardCache(folder=tmp_path / "cache", gigabytes=0.01))


def draws(shards: ShardSet, steps: int) -> list[list[Draw]]:
    (sizes,) = shards.shard_sizes
    order = Order([BlockShuffle(sizes, window=1)], [1.0], seed=0, batch_size=2)
    return list(rank_batches(order, steps=range(steps), rank=0, world_size=1))


@pytest.mark.parametrize("num_shards", [1, 2, 100])
def test_batches_are_the_same_and_in_the_same_order(cached: ShardSet, num_shards: int) -> None:
    expected = draws(cached, 19)
    assert list(fetch_ahead(expected, cached, num_shards=num_shards)) == expected


def test_the_next_shard_is_copied_while_this_one_is_used(cached: ShardSet) -> None:
    expected = draws(cached, 8)
    ahead = fetch_ahead(expected, cached, num_shards=1)
    assert next(ahead) == expected[0]
    used = cached.shards_of([draw.index for batch in expected for draw in batch])
    assert len(used) == 3
    assert cached.cache is not None
    deadline = time.monotonic() + 10
    while len(list(cached.cache.folder.glob("*.tar"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(cached.cache.folder.glob("*.tar"))) == 2, "this one, the next one, and not the last"
    ahead.close()


def test_a_shard_that_cannot_be_copied_stops_nothing(cached: ShardSet, shards) -> None:
    expected = draws(ShardSet(shards.folder / ".", cache=None), 8)
    for i, shard in enumerate(cached._shards):
        cached._shards[i] = shard._replace(folder=shard.folder / "nowhere")
    assert list(fetch_ahead(expected, cached, num_shards=1)) == expected
