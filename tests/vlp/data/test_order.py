"""The order of samples is a pure function of (seed, step), whatever the number of workers."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from vlp.core.seeds import mix_seeds
from vlp.data.order import BlockShuffle, Draw, FullShuffle, Order, rank_batches

SHARDS = (9, 0, 14, 3, 1, 12, 14)
NUM_SAMPLES, BATCH_SIZE = sum(SHARDS), 8  # 6 steps an epoch; 5 samples wait
EPOCH = NUM_SAMPLES // BATCH_SIZE


def full(seed: int) -> Order:
    return Order([FullShuffle(SHARDS)], [1.0], seed=seed, batch_size=BATCH_SIZE)


def block(seed: int) -> Order:
    return Order([BlockShuffle(SHARDS, window=2)], [1.0], seed=seed, batch_size=BATCH_SIZE)


@pytest.fixture(params=[full, block])
def batches(request):
    def make(steps: range, *, rank: int = 0, world_size: int = 1, seed: int = 0) -> list[list[Draw]]:
        return list(rank_batches(request.param(seed), steps=steps, rank=rank, world_size=world_size))

    return make


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_workers_parts_in_rank_order_are_the_batch_of_one_worker(batches, world_size: int) -> None:
    whole = batches(range(20))
    parts = [batches(range(20), rank=rank, world_size=world_size) for rank in range(world_size)]
    assert all(len(part) == BATCH_SIZE // world_size for rank in parts for part in rank)
    for step in range(20):
        assert [draw for rank in parts for draw in rank[step]] == whole[step]


def test_an_epoch_draws_no_sample_twice_and_each_epoch_another_order(batches) -> None:
    epochs = [
        [draw.index for batch in batches(range(e * EPOCH, (e + 1) * EPOCH)) for draw in batch]
        for e in range(4)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == EPOCH * BATCH_SIZE
        assert set(epoch) <= set(range(NUM_SAMPLES))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({frozenset(epoch) for epoch in epochs}) == 4, "always the same samples wait"


def test_a_draw_knows_the_epoch_of_its_step(batches) -> None:
    for step, batch in enumerate(batches(range(3 * EPOCH))):
        assert {draw.epoch for draw in batch} == {step // EPOCH}


@pytest.mark.parametrize("start", [0, 1, EPOCH - 1, EPOCH, 2 * EPOCH + 3])
def test_a_run_that_resumes_draws_what_an_undisturbed_one_draws(batches, start: int) -> None:
    undisturbed = batches(range(20))
    assert batches(range(start, 20)) == undisturbed[start:]
    resumed = [batches(range(start, 20), rank=rank, world_size=4) for rank in range(4)]
    for i, batch in enumerate(undisturbed[start:]):
        assert [draw for rank in resumed for draw in rank[i]] == batch


def test_seeds_give_different_orders(batches) -> None:
    assert batches(range(EPOCH), seed=0) != batches(range(EPOCH), seed=1)


def test_every_sample_takes_every_place_equally_often() -> None:
    """Mean rank of each sample over 400 epochs; 5 standard errors of a uniform rank."""
    num_samples, epochs = 10, 400
    order = Order([FullShuffle([4, 6])], [1.0], seed=0, batch_size=10)
    draws = rank_batches(order, steps=range(epochs), rank=0, world_size=1)
    places = np.array([np.argsort([draw.index for draw in batch]) for batch in draws])
    error = np.sqrt((num_samples**2 - 1) / 12 / epochs)
    assert np.abs(places.mean(axis=0) - 4.5).max() < 5 * error


def test_a_block_reads_its_shards_only_and_no_shard_comes_in_two_blocks() -> None:
    sizes, window = [5, 7, 6, 4, 8, 5, 9], 3
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    orders = set()
    for seed in range(20):
        indices = BlockShuffle(sizes, window=window).indices(np.arange(sum(sizes)), seed=seed)
        assert sorted(indices) == list(range(sum(sizes)))
        shards = list(dict.fromkeys(shard_of[indices]))  # in the order of their first samples
        blocks = [shards[i : i + window] for i in range(0, len(sizes), window)]
        ends = np.cumsum([0] + [sum(sizes[shard] for shard in block) for block in blocks])
        for block, start, end in zip(blocks, ends, ends[1:], strict=False):
            assert set(shard_of[indices[start:end]]) == set(block)
        orders.add(tuple(shards))
    assert len(orders) == 20


def test_a_blocks_samples_are_mixed() -> None:
    indices = BlockShuffle([1000] * 4, window=4).indices(np.arange(4000), seed=0)
    assert abs(np.corrcoef(np.arange(4000), indices)[0, 1]) < 5 / 4000**0.5


@pytest.fixture
def mixed() -> Order:
    sets = [FullShuffle([40, 31]), BlockShuffle([9, 8, 7], window=2), FullShuffle([500])]
    return Order(sets, [0.55, 0.3, 0.15], seed=3, batch_size=10)


def set_of(draw: Draw) -> int:
    return int(np.searchsorted([71, 95, 595], draw.index, side="right"))


def test_a_mixture_has_its_shares_after_any_number_of_steps(mixed: Order) -> None:
    counts = np.zeros(3)
    for step in range(200):
        draws = mixed.draws(step, range(10))
        assert len(draws) == 10
        counts += np.bincount([set_of(draw) for draw in draws], minlength=3)
        assert np.abs(counts - (step + 1) * np.array([5.5, 3, 1.5])).max() < 1.001


def test_every_set_of_a_mixture_goes_through_its_own_epochs(mixed: Order) -> None:
    drawn = [draw for step in range(200) for draw in mixed.draws(step, range(10))]
    for k, size in enumerate((71, 24, 500)):
        own = [draw for draw in drawn if set_of(draw) == k]
        assert len(set(own)) == len(own)
        last = max(draw.epoch for draw in own)
        assert last == (len(own) - 1) // size
        for epoch in range(last):
            assert sum(draw.epoch == epoch for draw in own) == size


def test_the_workers_parts_of_a_mixture_are_its_batch_and_each_has_every_set(mixed: Order) -> None:
    for step in (0, 1, 17):
        parts = [mixed.draws(step, range(start, start + 5)) for start in (0, 5)]
        assert parts[0] + parts[1] == mixed.draws(step, range(10))
    places = [
        i for step in range(200) for i, draw in enumerate(mixed.draws(step, range(10))) if not set_of(draw)
    ]
    assert np.mean(places) == pytest.approx(4.5, abs=5 * (8.25 / len(places)) ** 0.5)


def test_a_share_of_less_than_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one sample"):
        Order([FullShuffle([50]), FullShuffle([50])], [0.95, 0.05], seed=0, batch_size=10)


def test_a_draws_randomness_depends_on_seed_epoch_and_index_alone() -> None:
    numbers = {
        (seed, epoch, index): tuple(Draw(index, epoch).rng(seed).random(4))
        for seed in range(3)
        for epoch in range(4)
        for index in range(50)
    }
    assert len(set(numbers.values())) == len(numbers)
    assert tuple(pickle.loads(pickle.dumps(Draw(7, 2))).rng(1).random(4)) == numbers[1, 2, 7]


def test_near_seeds_give_unrelated_numbers() -> None:
    """Half of the 63 bits change, on average, where one part grows by one."""
    seeds = [mix_seeds(a, b) for a in range(40) for b in range(40)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    changed = [(a ^ b).bit_count() for a, b in pairwise(seeds)]
    assert np.mean(changed) == pytest.approx(31.5, abs=5 * np.sqrt(63 / 4 / len(changed)))


def test_the_order_of_the_parts_of_a_seed_matters() -> None:
    assert len({mix_seeds(1, 2), mix_seeds(2, 1), mix_seeds(1, 2, 0), mix_seeds(0, 1, 2), mix_seeds(3)}) == 5
