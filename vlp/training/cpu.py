"""What makes training on a CPU fast. No result changes by more than the rounding of float32."""

import ctypes
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def prepare_cpu_training(model: nn.Module) -> None:
    """Make the steps of this process and of this model faster; before the first one."""
    keep_freed_memory()
    multiply_by_onednn(model)


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
    """Have the linear layers of a model multiply by oneDNN in float32, as they do in bfloat16 anyway.

    PyTorch multiplies float32 matrices by MKL, which uses half of the vector width on CPUs that are not
    Intel's; the convolutions are oneDNN's, which uses all of it. On an AMD EPYC with AVX-512, a CLIP step
    takes 0.57 of the time.
    """
    if torch.backends.mkldnn.is_available():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.forward = partial(_linear, module)  # pyright: ignore[reportAttributeAccessIssue]


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    """`F.linear`, in float32 as a convolution of an image of one column: (..., D) -> (..., E)."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.linear(x, module.weight, module.bias)
    rows = x.reshape(1, -1, 1, x.shape[-1])
    image = rows.permute(0, 3, 1, 2)  # (1, D, rows, 1), channels last: nothing is copied
    result = F.conv2d(image, module.weight[:, :, None, None], module.bias)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
