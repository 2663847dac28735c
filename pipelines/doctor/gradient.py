"""One gradient, computed by all nodes together and by one alone."""

import os
import socket
from datetime import timedelta

from pipelines.config.errors import UserError

MEET_SECONDS = 60
ROWS_PER_WORKER, WIDTH = 8, 64
TOLERANCE = 1e-4


def meeting_point() -> str:
    """An address of this node where the workers meet; it is free now."""
    import ray.util

    with socket.socket() as free:
        free.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


def difference_of_gradients(rank: int, world_size: int, address: str, backend: str) -> float:
    """How far the mean of the workers' gradients is from that of all their rows at once, relatively."""
    import torch
    import torch.distributed as dist

    device = torch.device("cuda" if backend == "nccl" else "cpu")
    dist.init_process_group(
        backend,
        init_method=address,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=MEET_SECONDS),
    )
    try:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(WIDTH, WIDTH, generator=generator).to(device).requires_grad_()
        rows = torch.randn(world_size * ROWS_PER_WORKER, WIDTH, generator=generator).to(device)
        mine = rows[rank * ROWS_PER_WORKER : (rank + 1) * ROWS_PER_WORKER]
        (together,) = torch.autograd.grad((mine @ weight).square().mean(), weight)
        (alone,) = torch.autograd.grad((rows @ weight).square().mean(), weight)
        dist.all_reduce(together)
        return float((together / world_size - alone).norm() / alone.norm())
    finally:
        dist.destroy_process_group()


def judge(differences: list[float], *, backend: str) -> str:
    """Whether the workers' gradients are what one alone computes."""
    worst = max(differences)
    if not worst < TOLERANCE:
        raise UserError(
            f"{backend} over {len(differences)} workers gives another gradient than one worker ({worst:.1e} "
            f"apart); install the same torch and driver on all nodes, and try {backend.upper()}_DEBUG=INFO"
        )
    return f"{backend} over {len(differences)} workers, {worst:.0e} from the gradient of one"


def interface_remedy(backend: str) -> str:
    """What to do where the workers do not meet."""
    set_now = os.environ.get(f"{backend.upper()}_SOCKET_IFNAME", "nothing")
    return (
        f"open all TCP ports between the nodes, and set {backend.upper()}_SOCKET_IFNAME on each (now "
        f"{set_now}) to the network interface by which it reaches the others"
    )
