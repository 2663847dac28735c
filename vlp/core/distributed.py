"""Collectives that do nothing in a single process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor


def world_size() -> int:
    """Number of workers; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This worker's position among the workers; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_gather(x: Tensor) -> Tensor:
    """Concatenate every worker's rows in rank order, keeping gradients: (B, ...) -> (B * world size, ...)."""
    return x if world_size() == 1 else _Gather.apply(x)  # pyright: ignore[reportReturnType]


def all_sum(x: Tensor) -> Tensor:
    """Sum over the workers, without gradient."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def all_mean(x: Tensor) -> Tensor:
    """Mean over the workers, without gradient."""
    return all_sum(x) / world_size()


def rows_of_global_draw(shape: tuple[int, int], device: torch.device, generator: Generator | None) -> Tensor:
    """This worker's (B, K) rows of one draw from [0, 1) for the global batch.

    So what is decided by it does not depend on how many workers share the batch.

    Args:
        generator: seeded alike on every worker.
    """
    B, K = shape
    draw = torch.rand((B * world_size(), K), device=device, generator=generator)
    return draw[rank() * B : (rank() + 1) * B]


def is_main() -> bool:
    """Whether this worker writes what is written once."""
    return rank() == 0


def is_of_peer(error: RuntimeError) -> bool:
    """Whether an error of a collective says that another worker is gone, rather than that this one failed."""
    lost = ("gloo/transport", "ncclRemoteError")
    is_of_network = isinstance(error, dist.DistNetworkError | dist.DistStoreError)
    return is_of_network or any(sign in str(error) for sign in lost)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every worker's loss depends on this worker's rows.
        return all_sum(gradients[0].contiguous()).chunk(world_size())[rank()]
