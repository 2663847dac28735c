"""Faster training on a CPU: the same numbers by another library, and memory that stays with the process."""

import copy
import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.training.cpu import fastest_matmul, keep_freed_memory, multiply_by_onednn, prepare_cpu_training


def gradients(model: nn.Module, x: Tensor, above: Tensor) -> list[Tensor]:
    """The output, and its gradients by the input and by every parameter."""
    x = x.clone().requires_grad_()
    y = model(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *model.parameters()], above)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 5, 7), (2, 3, 4, 7)])
def test_layers_and_their_gradients_are_those_of_the_exact_product(
    shape: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 6, bias=bias), torch.randn(shape)
    above = torch.randn(*shape[:-1], 6)
    expected = gradients(copy.deepcopy(layer).double(), x.double(), above.double())
    multiply_by_onednn(layer)
    for found, exact in zip(gradients(layer, x, above), expected, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


def test_tensors_in_any_order_of_memory_are_taken() -> None:
    layer, x = nn.Linear(7, 6), torch.randn(5, 7, 2, generator=Generator().manual_seed(0)).transpose(1, 2)
    expected = layer(x)
    multiply_by_onednn(layer)
    torch.testing.assert_close(layer(x), expected)


def test_a_model_keeps_its_weights_and_its_copies_are_their_own() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(ViTConfig(image_size=16, patch_size=8, width=64, depth=1, num_heads=2))
    images, names = torch.randn(2, 3, 16, 16), list(model.state_dict())
    expected = model(images)
    multiply_by_onednn(model)
    torch.testing.assert_close(model(images), expected)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(images), expected)
    assert list(twin.state_dict()) == names


def test_under_autocast_layers_give_bfloat16() -> None:
    layer, x = nn.Linear(7, 6), torch.randn(4, 7, generator=Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        multiply_by_onednn(layer)
        found = layer(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def layer_seconds(layer: nn.Linear) -> float:
    """Processor time of a layer's forward and backward pass on one thread."""
    x = torch.randn(512, 768, requires_grad=True)
    times = []
    for _ in range(8):
        start = time.thread_time()
        layer(x).sum().backward()
        times.append(time.thread_time() - start)
    return min(times)


def test_layers_are_never_slower_than_pytorchs_own_on_the_cpu_at_hand() -> None:
    own, chosen = nn.Linear(768, 768), nn.Linear(768, 768)
    num_threads = torch.get_num_threads()
    prepare_cpu_training(chosen, matmul=fastest_matmul())
    assert torch.get_num_threads() == num_threads
    assert layer_seconds(chosen) < 1.25 * layer_seconds(own)


def resident() -> int:
    """Bytes of memory that this process holds; whatever the size of the system's pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kept_of_a_freed_block() -> int:
    """How many of its 64 MiB the process still holds."""
    start = resident()
    block = torch.ones(2**24)
    del block
    return resident() - start


def kept_before_and_after() -> tuple[int, int]:
    torch.ones(2**20)  # what PyTorch needs for itself at the first time
    before = kept_of_a_freed_block()
    keep_freed_memory()
    return before, kept_of_a_freed_block()


@pytest.mark.skipif(sys.platform != "linux", reason="it is a setting of glibc")
def test_freed_memory_is_used_again_instead_of_going_back_to_the_system() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # the setting stays with its process
        before, after = pool.apply(kept_before_and_after)
    assert before < 8 << 20
    assert after > 56 << 20
