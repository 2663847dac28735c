"""SimMIM, against the release's numbers (arXiv:2111.09886)."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from vlp.encoders.patches import patchify, unpatchify
from vlp.encoders.vit import ViTConfig
from vlp.losses.reconstruction import masked_mean
from vlp.masking import MaskStrategy
from vlp.masking.none import NoMask
from vlp.masking.random import RandomMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.prediction_heads import PREDICTION_HEADS, LinearHeadConfig, pixel_shuffle_head
from vlp.objectives.simmim import SimMIM, SimMIMConfig, hidden_share
from vlp.targets.pixels import PixelTargetConfig
from vlp.targets.target import REBUILD_TARGETS, shrink

HALF = RandomMask(mask_ratio=0.5)


def build(mask: MaskStrategy = HALF, **settings: Any) -> SimMIM:
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=32, patch_size=8, width=32, depth=2, num_heads=2).build()
    return SimMIMConfig(**settings).build(encoder, mask, vocabulary=Vocabulary(8, 5))


def random_images(size: int = 32) -> Tensor:
    return torch.randn(3, 3, size, size, generator=Generator().manual_seed(0))


def golden_images() -> Tensor:
    n, c, i, j = torch.meshgrid(
        *(torch.arange(s, dtype=torch.float64) for s in (2, 3, 64, 64)), indexing="ij"
    )
    wave = torch.sin(0.013 * (i + 1) * (c + 1) + 0.029 * (j + 1) + 0.7 * n)
    return (wave * torch.cos(0.017 * j * (n + 1) - 0.011 * i)).float()


@pytest.mark.parametrize(
    ("loss", "loss_on", "expected"),
    [
        ("l1", "hidden", 0.5835447907447815),
        ("l1", "all", 0.5800935626029968),
        ("l2", "hidden", 0.45043110847473145),
        ("smooth_l1", "hidden", 0.22389332950115204),
    ],
)
def test_the_loss_is_that_of_the_release(loss: Any, loss_on: str, expected: float) -> None:
    k = torch.arange(2 * 3 * 64 * 64, dtype=torch.float64)
    predictions = (0.3 * torch.cos(0.003 * k)).view(2, 3, 64, 64).float()
    a, b = torch.arange(16)[:, None] // 8, torch.arange(16)[None] // 8
    masked = ((a + b) % 2 == 1).flatten().expand(2, -1)
    weights = hidden_share(masked, 64)
    assert weights.sum() == 4096
    errors = PixelTargetConfig(loss=loss).build(64).errors(predictions, golden_images())
    found = masked_mean(errors, weights if loss_on == "hidden" else torch.ones_like(weights))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_head_shuffles_channels_into_pixels_channel_first() -> None:
    s, side = 4, 3
    head = pixel_shuffle_head(3 * s * s, 3, s)
    linear = head[0]
    assert isinstance(linear, nn.Conv2d)
    nn.init.dirac_(linear.weight)
    assert linear.bias is not None
    nn.init.zeros_(linear.bias)
    states = torch.randn(1, 3 * s * s, side, side)
    pixels = head(states)
    for c, h, w, i, j in [(0, 0, 0, 0, 0), (1, 2, 1, 3, 2), (2, 1, 2, 0, 3)]:
        assert pixels[0, c, h * s + i, w * s + j] == states[0, c * s * s + i * s + j, h, w]


@torch.no_grad()
@pytest.mark.parametrize("head", sorted(PREDICTION_HEADS))
def test_hidden_pixels_change_no_prediction(head: str) -> None:
    model, images = build(head=PREDICTION_HEADS[head]()).eval(), random_images()
    masked = torch.rand(3, 16, generator=Generator().manual_seed(0)) < 0.5
    pixels = patchify(images, 8)
    pixels[masked] = 100.0
    before, after = (model.predict(x, masked) for x in (images, unpatchify(pixels, 8)))
    assert before.shape == (3, 3, 32, 32)
    torch.testing.assert_close(before, after)


def test_only_hidden_pixels_count_unless_all_shall() -> None:
    batch = Batch(random_images(), torch.zeros(3, 2, dtype=torch.int64), torch.full((3,), 2))
    for loss_on, share in (("hidden", 0.5), ("all", 1.0)):
        model = build(loss_on=loss_on)
        counted = torch.zeros(3, 32, 32)

        def count(predictions: Tensor, images: Tensor, counted: Tensor = counted) -> Tensor:
            return counted.requires_grad_() + 0 * predictions.sum()

        model.target.errors = count  # pyright: ignore[reportAttributeAccessIssue]
        model(batch, progress=0.0, generator=Generator().manual_seed(0)).loss.backward()
        assert counted.grad is not None
        assert (counted.grad > 0).float().mean() == share


@pytest.mark.parametrize("head", sorted(PREDICTION_HEADS))
@pytest.mark.parametrize("target", sorted(REBUILD_TARGETS))
def test_every_head_learns_every_target(head: str, target: str) -> None:
    settings = {"resolution": 4, "num_codes": 16} if target == "tokens" else {"resolution": 32}
    if target == "tokens" and head.startswith("inverse"):
        with pytest.raises(ValueError, match="needs a target of 8 or more places"):
            build(head=PREDICTION_HEADS[head](), target=REBUILD_TARGETS[target](**settings))
        return
    model = build(head=PREDICTION_HEADS[head](), target=REBUILD_TARGETS[target](**settings)).train()
    batch = Batch(random_images(), torch.zeros(3, 2, dtype=torch.int64), torch.full((3,), 2))
    model(batch, progress=0.0, generator=Generator().manual_seed(0)).loss.backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_a_lower_resolution_averages_pixels(resolution: int) -> None:
    images, cell = random_images(), 32 // resolution
    model = build(target=PixelTargetConfig(resolution=resolution))
    assert model.predict(images, torch.zeros(3, 16, dtype=torch.bool)).shape == (3, 3, resolution, resolution)
    found = shrink(images, resolution)
    torch.testing.assert_close(found[1, 2, 1, 3], images[1, 2, cell : 2 * cell, 3 * cell : 4 * cell].mean())


def test_a_place_that_is_hidden_in_part_counts_in_part() -> None:
    masked = torch.tensor([[True, True, False, True, True, True, False, False] + [False] * 8])
    assert hidden_share(masked, 2).tolist() == [[[1.0, 0.25], [0.0, 0.0]]]
    assert torch.equal(hidden_share(masked, 8)[0, ::2, 1::2].flatten(), masked[0].float())


@pytest.mark.parametrize("mask", [NoMask(), RandomMask(mask_ratio=0.0)])
def test_a_mask_that_hides_nothing_is_an_error(mask: MaskStrategy) -> None:
    with pytest.raises(ValueError, match=f"simmim rebuilds hidden patches, but mask {mask.name} hides none"):
        build(mask)


@pytest.mark.parametrize("resolution", [2, 12])
def test_a_resolution_that_does_not_fit_is_named(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"resolution {resolution}"):
        build(target=PixelTargetConfig(resolution=resolution), head=LinearHeadConfig())
