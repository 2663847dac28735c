"""Targets that are classes, against colours and bins counted by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from vlp.normalization import normalize
from vlp.objectives.class_targets import (
    ColorBinTargetConfig,
    ColorClusterTargetConfig,
    PatchQuantizer,
    TokenTargetConfig,
)
from vlp.objectives.quantizer import fit_codes, nearest_codes


@pytest.fixture
def pixels() -> Tensor:
    """(2, 3, 8, 8) uint8."""
    return torch.randint(0, 256, (2, 3, 8, 8), generator=Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("num_bins", [8, 256])
def test_bins_are_equal_parts_of_the_values(pixels: Tensor, num_bins: int) -> None:
    target = ColorBinTargetConfig(num_bins=num_bins).build(8)
    found = target.classes(normalize(pixels, "imagenet"))
    assert torch.equal(found, pixels.long() * num_bins // 256)


def test_a_pixel_belongs_to_the_nearest_colour_of_the_palette(pixels: Tensor, tmp_path: Path) -> None:
    palette = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    np.save(tmp_path / "palette.npy", palette)
    target = ColorClusterTargetConfig(palette=tmp_path / "palette.npy").build(8)
    colors = pixels.permute(0, 2, 3, 1).double() / 127.5 - 1
    expected = (colors[..., None, :] - torch.from_numpy(palette)).square().sum(dim=-1).argmin(dim=-1)
    assert torch.equal(target.classes(normalize(pixels, "imagenet")), expected)


def test_without_a_palette_there_are_512_even_colours() -> None:
    target = ColorClusterTargetConfig().build(8)
    assert target.channels == 512
    assert target.palette.unique(dim=0).shape == (512, 3)
    assert target.palette.abs().max() == 1 - 1 / 8


def test_the_right_class_everywhere_costs_nothing(pixels: Tensor) -> None:
    images = normalize(pixels, "imagenet")
    clusters, bins = ColorClusterTargetConfig().build(8), ColorBinTargetConfig().build(8)
    hot = torch.nn.functional.one_hot(clusters.classes(images), 512).permute(0, 3, 1, 2)
    assert clusters.errors(100.0 * hot, images).max() < 1e-5
    hot = torch.nn.functional.one_hot(bins.classes(images), 8)  # (B, 3, S, S, bins)
    assert bins.errors(100.0 * hot.permute(0, 1, 4, 2, 3).flatten(1, 2), images).max() < 1e-5


def test_patches_that_look_alike_are_one_visual_word() -> None:
    quantizer = PatchQuantizer(TokenTargetConfig(num_tokens=64, resolution=2), 16)
    images = torch.randn(2, 3, 16, 16, generator=Generator().manual_seed(0))
    images[1, :, :8, 8:] = 3 * images[0, :, 8:, :8]
    words = quantizer(images)
    assert words.shape == (2, 2, 2)
    assert words[1, 0, 1] == words[0, 1, 0]
    assert words.unique().numel() > 3


def test_codes_are_fitted_to_groups_of_vectors() -> None:
    generator = Generator().manual_seed(0)
    centers = 10 * torch.eye(4, 6)
    labels = torch.arange(400) % 4
    vectors = centers[labels] + 0.1 * torch.randn(400, 6, generator=generator)
    codes = fit_codes(vectors, 8, generator=generator)
    assert (vectors - codes[nearest_codes(vectors[None], codes)[0]]).norm(dim=1).mean() < 0.5
    with pytest.raises(ValueError, match="8 codes cannot be fitted to 3 vectors"):
        fit_codes(vectors[:3], 8)
