"""A worker whose peer dies knows that it is not at fault."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from vlp.core.distributed import all_sum, is_of_peer

DIED, KNEW = 7, 8


def work(rank: int, folder: Path) -> None:
    """Sum once together; then one dies, and the other waits for it."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    all_sum(torch.ones(1))
    if rank == 1:
        os._exit(DIED)
    try:
        all_sum(torch.ones(1))
    except RuntimeError as error:
        os._exit(KNEW if is_of_peer(error) else 1)


def test_the_error_of_a_collective_is_of_the_peer_that_died(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=work, args=(rank, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [KNEW, DIED]


def test_an_error_of_ones_own_is_not() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.dot(torch.ones(2), torch.ones(3))
    assert not is_of_peer(caught.value)
