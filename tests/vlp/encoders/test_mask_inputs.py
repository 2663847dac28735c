"""What masks may look at: embedded patches and attention, by the current weights and without gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking import visible_slots
from vlp.masking.attention import AttentionMask


@pytest.fixture
def encoder() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(ViTConfig(image_size=32, patch_size=8, width=32, depth=3, num_heads=4))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_attention_is_the_last_softmax_that_the_encoder_computes(
    encoder: VisionTransformer, images: Tensor
) -> None:
    """timm's unfused attention shows its weights to the dropout behind them."""
    seen = []
    last: Any = encoder.get_submodule("blocks.2.attn")
    last.fused_attn = False
    last.get_submodule("attn_drop").register_forward_hook(lambda module, inputs, output: seen.append(output))
    encoder.eval()(images)
    (weights,) = seen  # (B, heads, 1 + N, 1 + N)
    found = encoder.mask_inputs(images).attention
    assert found.shape == (3, 16)
    torch.testing.assert_close(found, weights[:, :, 0, 1:].mean(dim=1))


def test_views_carry_no_gradient_and_leave_the_mode_as_it_was(
    encoder: VisionTransformer, images: Tensor
) -> None:
    for training in (True, False):
        inputs = encoder.train(training).mask_inputs(images)
        assert not inputs.tokens.requires_grad
        assert not inputs.attention.requires_grad
        assert all(module.training == training for module in encoder.modules())


def test_tokens_are_embedded_patches_with_their_positions(encoder: VisionTransformer, images: Tensor) -> None:
    torch.testing.assert_close(encoder.mask_inputs(images).tokens, encoder.embed(images).detach())


def test_looking_first_costs_no_weight_its_gradient_under_autocast(
    encoder: VisionTransformer, images: Tensor
) -> None:
    """Autocast remembers cast weights; ones that were cast without gradient must not be used again."""
    with torch.autocast("cpu", torch.bfloat16):
        masked = AttentionMask()(encoder.mask_inputs(images))
        states = encoder(images, visible_slots(masked, 8))
    states.float().square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []
