"""A batch encoded in parts: the loss and the gradient of the whole, for the activations of one part."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.autograd.graph import saved_tensors_hooks

from vlp.contracts import settings
from vlp.encoders.beit import BEiTConfig
from vlp.encoders.blocks import checkpoint_blocks, compile_blocks
from vlp.encoders.drop_path import DropPath
from vlp.encoders.vit import ViTConfig
from vlp.losses.labels import TwoWayLoss
from vlp.masking import MaskStrategy
from vlp.masking.cluster import ClusterMask
from vlp.masking.random import RandomMask
from vlp.objectives import OBJECTIVES, Batch, Objective, Vocabulary

SETTINGS = settings.OBJECTIVES | {
    "superclass": {"loss": TwoWayLoss(), "idf": "none"},  # it compares the images with each other
}
MASKS = {"random": RandomMask(), "cluster": ClusterMask(threshold=0.3)}


@pytest.fixture
def batch() -> Batch:
    generator = Generator().manual_seed(0)
    images = torch.randn(10, 3, 32, 32, generator=generator)
    tokens = torch.randint(0, 20, (10, 6), generator=generator)
    return Batch(images, tokens, torch.arange(10) % 5 + 2)


def build(objective: str, mask: MaskStrategy, drop_path: float = 0.0) -> Objective:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "num_heads": 2}
    encoder = BEiTConfig(**sizes, drop_path=drop_path) if drop_path else ViTConfig(**sizes)
    config = OBJECTIVES[objective](**SETTINGS.get(objective, {}))
    return config.build(encoder.build(), mask, vocabulary=Vocabulary(20, 6)).train()


def gradients(model: Objective, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(5)
    step = model(batch, progress=0.0, generator=Generator().manual_seed(1))
    step.loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": step.loss.detach(), **step.metrics}


@pytest.mark.parametrize(("objective", "mask"), list(product(sorted(OBJECTIVES), sorted(MASKS))))
@pytest.mark.parametrize("num_parts", [3, 10, 99])
def test_parts_give_the_loss_and_gradient_of_the_whole(
    objective: str, mask: str, num_parts: int, batch: Batch
) -> None:
    whole, parts = build(objective, MASKS[mask]), build(objective, MASKS[mask])
    parts.num_parts = num_parts
    torch.testing.assert_close(gradients(parts, batch), gradients(whole, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_parts_drop_the_paths_of_the_whole(objective: str, is_checkpointed: bool, batch: Batch) -> None:
    whole, parts = (build(objective, RandomMask(), drop_path=0.5) for _ in range(2))
    parts.num_parts = 3
    if is_checkpointed:
        checkpoint_blocks(parts.blocks)
    found, expected = gradients(parts, batch), gradients(whole, batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert expected["loss"] != gradients(build(objective, RandomMask()), batch)["loss"]


def test_a_path_is_dropped_for_its_share_of_the_samples_and_the_mean_stays() -> None:
    path = DropPath(0.3)
    x = torch.ones(20_000, 2, 3)
    path.noise = torch.rand(len(x), generator=Generator().manual_seed(0))
    dropped = path(x)
    assert (dropped == 0).all(dim=(1, 2)).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(path.eval()(x), x)


def test_dropped_paths_are_the_same_in_both_passes(batch: Batch) -> None:
    """Else the gradient would belong to another network than the loss; a step along it would tell."""
    model = build("simmim", RandomMask(), drop_path=0.5)
    model.num_parts = 3
    found = gradients(model, batch)
    moved = []
    for length in (1e-2, -1e-2):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(found[name], alpha=length)
            torch.manual_seed(5)
            moved.append(model(batch, progress=0.0, generator=Generator().manual_seed(1)).loss.item())
            for name, parameter in model.named_parameters():
                parameter.sub_(found[name], alpha=length)
    squared_length = sum(found[name].square().sum().item() for name, _ in model.named_parameters())
    assert (moved[0] - moved[1]) / 2e-2 == pytest.approx(squared_length, rel=0.02)


def held_bytes(model: Objective, batch: Batch) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        loss = model(batch, progress=0.0, generator=Generator().manual_seed(1)).loss
    del loss
    return sum(held.values())


def test_parts_hold_little_for_the_backward_pass(batch: Batch) -> None:
    whole, parts = (build("contrastive", RandomMask()) for _ in range(2))
    parts.num_parts = 5
    assert held_bytes(parts, batch) < 0.2 * held_bytes(whole, batch)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_checkpointed_blocks_change_no_gradient_and_hold_less(objective: str, batch: Batch) -> None:
    plain, checkpointed = build(objective, RandomMask()), build(objective, RandomMask())
    checkpoint_blocks(checkpointed.blocks)
    held, before = held_bytes(checkpointed, batch), held_bytes(plain, batch)
    assert held < 0.7 * before
    torch.testing.assert_close(gradients(checkpointed, batch), gradients(plain, batch), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_compiled_blocks_change_no_gradient(objective: str, is_checkpointed: bool, batch: Batch) -> None:
    plain, compiled = build(objective, RandomMask()), build(objective, RandomMask())
    if is_checkpointed:
        checkpoint_blocks(compiled.blocks)
    compile_blocks(compiled.blocks, backend="aot_eager")
    names = list(plain.state_dict())
    torch.testing.assert_close(gradients(compiled, batch), gradients(plain, batch), rtol=1e-4, atol=1e-6)
    assert list(compiled.state_dict()) == names
