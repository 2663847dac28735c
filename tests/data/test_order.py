"""The order of samples is a pure function of (seed, step), whatever the number of workers."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from vlp.data.order import Draw, rank_batches
from vlp.seeds import mix_seeds

NUM_SAMPLES, BATCH_SIZE = 53, 8  # 6 steps an epoch; 5 samples wait
EPOCH = NUM_SAMPLES // BATCH_SIZE


def batches(steps: range, *, rank: int = 0, world_size: int = 1, seed: int = 0) -> list[list[Draw]]:
    return list(
        rank_batches(
            seed=seed,
            num_samples=NUM_SAMPLES,
            batch_size=BATCH_SIZE,
            steps=steps,
            rank=rank,
            world_size=world_size,
        )
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_workers_parts_in_rank_order_are_the_batch_of_one_worker(world_size: int) -> None:
    whole = batches(range(20))
    parts = [batches(range(20), rank=rank, world_size=world_size) for rank in range(world_size)]
    assert all(len(part) == BATCH_SIZE // world_size for rank in parts for part in rank)
    for step in range(20):
        assert [draw for rank in parts for draw in rank[step]] == whole[step]


def test_an_epoch_draws_no_sample_twice_and_each_epoch_another_order() -> None:
    epochs = [
        [draw.index for batch in batches(range(e * EPOCH, (e + 1) * EPOCH)) for draw in batch]
        for e in range(4)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == EPOCH * BATCH_SIZE
        assert set(epoch) <= set(range(NUM_SAMPLES))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({frozenset(epoch) for epoch in epochs}) == 4, "always the same samples wait"


def test_a_draw_knows_the_epoch_of_its_step() -> None:
    for step, batch in enumerate(batches(range(3 * EPOCH))):
        assert {draw.epoch for draw in batch} == {step // EPOCH}


@pytest.mark.parametrize("start", [0, 1, EPOCH - 1, EPOCH, 2 * EPOCH + 3])
def test_a_run_that_resumes_draws_what_an_undisturbed_one_draws(start: int) -> None:
    undisturbed = batches(range(20))
    assert batches(range(start, 20)) == undisturbed[start:]
    resumed = [batches(range(start, 20), rank=rank, world_size=4) for rank in range(4)]
    for i, batch in enumerate(undisturbed[start:]):
        assert [draw for rank in resumed for draw in rank[i]] == batch


def test_seeds_give_different_orders() -> None:
    assert batches(range(EPOCH), seed=0) != batches(range(EPOCH), seed=1)


def test_every_sample_takes_every_place_equally_often() -> None:
    """Mean rank of each sample over 400 epochs; 5 standard errors of a uniform rank."""
    num_samples, epochs = 10, 400
    draws = rank_batches(
        seed=0, num_samples=num_samples, batch_size=10, steps=range(epochs), rank=0, world_size=1
    )
    places = np.array([np.argsort([draw.index for draw in batch]) for batch in draws])
    error = np.sqrt((num_samples**2 - 1) / 12 / epochs)
    assert np.abs(places.mean(axis=0) - 4.5).max() < 5 * error


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
