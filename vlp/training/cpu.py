"""What makes training on a CPU fast. No result changes by more than the rounding of float32."""

import ctypes
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.matmul import Matmul

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
ROWS, WIDTH, TURNS = 256, 512, 5
MIN_GAIN = 0.1
"""Share of PyTorch's time that oneDNN has to save: where it saves less, noise would choose the bits."""


def prepare_cpu_training(model: nn.Module, *, matmul: Matmul) -> None:
    """Make the steps of this process and of this model faster; before the first one."""
    keep_freed_memory()
    if matmul == "onednn":
        multiply_by_onednn(model)


@cache
def fastest_matmul() -> Matmul:
    """What multiplies fastest on this CPU, by products of some milliseconds.

    MKL uses half of the vector width on CPUs that are not Intel's, where oneDNN uses all of it: on an AMD
    EPYC with AVX-512 a CLIP step takes 0.57 of the time. On an Intel Xeon with AVX-512 oneDNN takes 1.06 to
    1.12 times as long as MKL.
    """
    if not torch.backends.mkldnn.is_available():
        return "pytorch"
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # whose processor time is the same beside other programs
    try:
        ways = _product(nn.functional.linear), _product(_onednn_linear)
        times = [[_processor_time(way) for way in ways] for _ in range(1 + TURNS)][1:]
    finally:
        torch.set_num_threads(num_threads)
    pytorch, onednn = (min(times_of_way) for times_of_way in zip(*times, strict=True))
    return "onednn" if onednn < (1 - MIN_GAIN) * pytorch else "pytorch"


def _product(linear: Callable[..., Tensor]) -> Callable[[], Any]:
    """Forward and backward pass of a layer."""
    x, weight = torch.ones(ROWS, WIDTH, requires_grad=True), torch.ones(WIDTH, WIDTH, requires_grad=True)
    above = torch.ones(ROWS, WIDTH)
    return lambda: torch.autograd.grad(linear(x, weight, None), [x, weight], above)


def _processor_time(work: Callable[[], Any]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step; for a process that trains, before its first step.

    Every step frees its activations and gradients and asks for as much again. Blocks of that size go back to
    the system by default, which clears each page before it hands it out again: 3 % of the time of a CLIP
    step, ViT-B/16 on 8 images.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):  # other C libraries have no such settings
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def multiply_by_onednn(model: nn.Module) -> None:
    """Have the linear layers of a model multiply by oneDNN in float32, as they do in bfloat16 anyway."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_forward, module)  # pyright: ignore[reportAttributeAccessIssue]


def _forward(module: nn.Linear, x: Tensor) -> Tensor:
    """What the layer gives: (..., D) -> (..., E)."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.linear(x, module.weight, module.bias)
    return _onednn_linear(x, module.weight, module.bias)


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` as a convolution of an image of one column: (..., D), (E, D) -> (..., E)."""
    rows = x.reshape(1, -1, 1, x.shape[-1])
    image = rows.permute(0, 3, 1, 2)  # (1, D, rows, 1), channels last: nothing is copied
    result = F.conv2d(image, weight[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
