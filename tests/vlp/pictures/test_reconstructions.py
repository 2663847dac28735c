"""Rebuilt pictures show predictions in the image's own colours, and visible patches untouched."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from vlp.core.normalization import denormalize, normalize
from vlp.encoders.patches import patchify, unpatchify
from vlp.encoders.swin import SwinConfig
from vlp.encoders.text import TextConfig
from vlp.encoders.vit import ViTConfig
from vlp.masking import visible_slots
from vlp.masking.grid import GridMask
from vlp.masking.random import RandomMask
from vlp.objectives import Objective, Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.mae import MAE, MAEConfig
from vlp.objectives.simmim import SimMIMConfig
from vlp.pictures.reconstructions import by_pixel, reconstructions
from vlp.targets.color_bins import ColorBinTargetConfig
from vlp.targets.pixels import PixelTargetConfig
from vlp.targets.tokens import TokenTargetConfig

VIT = ViTConfig(image_size=32, patch_size=8, width=16, depth=1, num_heads=2)


def build(config: Any, mask: Any = RandomMask(mask_ratio=0.5), encoder: Any = VIT) -> Any:  # noqa: B008
    torch.manual_seed(0)
    return config.build(encoder.build(), mask, vocabulary=Vocabulary(8, 5)).eval()


def mae(*, norm_pix_loss: bool) -> MAE:
    return build(MAEConfig(decoder_width=16, decoder_depth=1, decoder_heads=2, norm_pix_loss=norm_pix_loss))


@pytest.fixture
def images() -> Tensor:
    pixels = torch.randint(0, 256, (3, 3, 32, 32), generator=Generator().manual_seed(0), dtype=torch.uint8)
    return normalize(pixels, "imagenet")


@torch.no_grad()
@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_perfect_mae_rebuilds_the_image_itself(images: Tensor, norm_pix_loss: bool) -> None:
    """Predictions that equal the targets, of either kind, are undone to the pixels."""
    model = mae(norm_pix_loss=norm_pix_loss)
    targets = model.targets(images)

    class Perfect(nn.Module):
        def forward(self, states: Tensor) -> Tensor:
            return targets

    model.to_pixels = Perfect()  # pyright: ignore[reportAttributeAccessIssue]
    slots = visible_slots(torch.arange(16).expand(3, -1) >= 8, 8)
    found = model.rebuild(images, slots)
    assert found is not None
    torch.testing.assert_close(found, images, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("resolution", [32, 8])
def test_simmims_predictions_are_enlarged_to_the_image(images: Tensor, resolution: int) -> None:
    model = build(SimMIMConfig(target=PixelTargetConfig(resolution=resolution)))
    masked = torch.arange(16).expand(3, -1) >= 8
    found = model.rebuild(images, visible_slots(masked, 8))
    assert found is not None
    cell = 32 // resolution
    assert torch.equal(found[:, :, ::cell, ::cell], model.predict(images, masked))
    assert torch.equal(found[:, :, cell - 1 :: cell, cell - 1 :: cell], found[:, :, ::cell, ::cell])


def test_values_of_patches_reach_their_pixels() -> None:
    values = torch.arange(32.0).view(2, 16)
    expected = unpatchify(values[:, :, None].expand(-1, -1, 16), 4)
    assert torch.equal(by_pixel(values, 16), expected)


CASES: dict[str, Any] = {
    "mae": lambda: mae(norm_pix_loss=True),
    "simmim": lambda: build(SimMIMConfig()),
    "simmim of colours": lambda: build(SimMIMConfig(target=ColorBinTargetConfig())),
    "simmim on swin": lambda: build(
        SimMIMConfig(),
        GridMask(cell_size=2),
        SwinConfig(image_size=32, width=8, depths=(1, 1), num_heads=(1, 2), window_size=2),
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_a_sheet_has_four_columns_and_the_pasted_one_keeps_what_is_visible(name: str, images: Tensor) -> None:
    model: Objective = CASES[name]()
    sheet = reconstructions(
        model, images, normalization="imagenet", progress=0.0, generator=Generator().manual_seed(1)
    )
    assert sheet is not None
    slots = model.choose_visible(images, progress=0.0, generator=Generator().manual_seed(1))
    rebuilt = model.rebuild(images, slots)
    assert rebuilt is not None
    size = model.image_encoder.config.patch_size
    patches, predicted = patchify(images, size), patchify(rebuilt, size)
    for row, keep in enumerate(slots.keep_indices):
        predicted[row, keep] = patches[row, keep]
    pasted = unpatchify(predicted, size)
    for column in (images, rebuilt, pasted):
        for picture in denormalize(column, "imagenet"):
            drawn = (picture * 255).round().byte().permute(1, 2, 0).numpy()
            assert contains(np.asarray(sheet), drawn)


def contains(sheet: np.ndarray, picture: np.ndarray) -> bool:
    """Whether a picture lies somewhere in the sheet, untouched."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    starts = np.argwhere((windows[:, :, 0] == picture[0]).all(axis=(2, 3)))
    return any((windows[tuple(start)] == picture).all() for start in starts)


def test_an_objective_that_shows_no_picture_gives_none(images: Tensor) -> None:
    contrastive = ContrastiveConfig(embed_dim=8, text_encoder=TextConfig(width=8, depth=1, num_heads=1))
    words = SimMIMConfig(target=TokenTargetConfig(resolution=4, num_codes=16))
    for config in (contrastive, words):
        assert reconstructions(build(config), images, normalization="imagenet", progress=0.0) is None
