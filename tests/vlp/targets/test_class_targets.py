"""Targets that are classes, against colours and bins counted by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import cluster
from torch import Generator, Tensor

from vlp.core.normalization import denormalize, normalize
from vlp.targets import codes as quantizer
from vlp.targets.codes import fit_codes, nearest_codes
from vlp.targets.color_bins import ColorBinTargetConfig
from vlp.targets.color_clusters import ColorClusterTargetConfig
from vlp.targets.target import REBUILD_TARGETS
from vlp.targets.tokens import PatchQuantizer, TokenTargetConfig

MiniBatchKMeans: Any = cluster.MiniBatchKMeans  # without types: its defaults would tell them


@pytest.fixture
def pixels() -> Tensor:
    """(2, 3, 8, 8) uint8."""
    return torch.randint(0, 256, (2, 3, 8, 8), generator=Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("num_bins", [8, 256])
def test_bins_are_equal_parts_of_the_values(pixels: Tensor, num_bins: int) -> None:
    target = ColorBinTargetConfig(num_bins=num_bins).build(8)
    found = target.classes(normalize(pixels, "imagenet"))
    assert torch.equal(found, pixels.long() * num_bins // 256)


@pytest.mark.parametrize("normalization", ["imagenet", "clip"])
def test_a_pixel_belongs_to_the_nearest_colour_of_the_palette(
    pixels: Tensor, tmp_path: Path, normalization: Any
) -> None:
    """Whatever the images are normalized by: the palette is of plain colours."""
    palette = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    np.save(tmp_path / "palette.npy", palette)
    config = ColorClusterTargetConfig(
        codes=tmp_path / "palette.npy", num_codes=20, normalization=normalization
    )
    colors = pixels.permute(0, 2, 3, 1).double() / 127.5 - 1
    expected = (colors[..., None, :] - torch.from_numpy(palette)).square().sum(dim=-1).argmin(dim=-1)
    assert torch.equal(config.build(8).classes(normalize(pixels, normalization)), expected)


@pytest.mark.parametrize("name", ["color_clusters", "color_bins", "tokens"])
def test_classes_are_the_same_under_every_normalization(pixels: Tensor, name: str) -> None:
    settings = {"resolution": 2} if name == "tokens" else {}
    predictions = torch.zeros(2, 8192 if name == "tokens" else 512 if name == "color_clusters" else 24, 1, 1)
    errors = []
    for normalization in ("imagenet", "clip"):
        target = REBUILD_TARGETS[name](normalization=normalization, **settings).build(8)
        S = target.resolution
        ramp = predictions.expand(-1, -1, S, S) + torch.linspace(-3, 3, predictions.shape[1])[:, None, None]
        errors.append(target.errors(ramp, normalize(pixels, normalization)))
    torch.testing.assert_close(*errors)


def test_without_a_palette_there_are_512_even_colours() -> None:
    target = ColorClusterTargetConfig().build(8)
    assert target.channels == 512
    assert target.codes.unique(dim=0).shape == (512, 3)
    assert target.codes.abs().max() == 1 - 1 / 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((512, 4)), r"holds \(512, 4\) numbers, not \(512, 3\)"),
        (np.zeros((20, 3)), r"holds \(20, 3\) numbers, not \(512, 3\)"),
        (np.full((512, 3), 255), r"holds numbers outside of \[-1, 1\]"),
        (np.full((512, 3), np.nan), r"holds numbers outside of \[-1, 1\]"),
        (np.full((512, 3), "red"), r"is not a .npy file of numbers"),
        (b"", r"is not a .npy file of numbers"),
        (b"0.1 0.2", r"is not a .npy file of numbers"),
    ],
)
def test_a_file_that_is_no_palette_is_named(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "palette.npy"
    file.write_bytes(content) if isinstance(content, bytes) else np.save(file, content)
    with pytest.raises(ValueError, match=f"codes: .*palette.npy {message}"):
        ColorClusterTargetConfig(codes=file).read_codes()
    with pytest.raises(ValueError, match=r"codes: no such file: nowhere\.npy; make one with"):
        ColorClusterTargetConfig(codes=Path("nowhere.npy")).read_codes()


@pytest.mark.parametrize(
    ("config", "settings", "named"),
    [
        (TokenTargetConfig, {"num_codes": 1}, "num_codes"),
        (ColorBinTargetConfig, {"num_bins": 257}, "num_bins"),
    ],
)
def test_an_impossible_number_of_classes_is_named(config: Any, settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config(**settings)
    with pytest.raises(ValueError, match="num_codes must be a cube, such as 512"):
        ColorClusterTargetConfig(num_codes=500).read_codes()


def test_the_predicted_classes_are_seen_as_the_colours_that_they_stand_for(pixels: Tensor) -> None:
    images = normalize(pixels, "imagenet")
    clusters = ColorClusterTargetConfig(num_codes=16**3).build(8)
    hot = F.one_hot(clusters.classes(images), 16**3).permute(0, 3, 1, 2).float()
    seen = 255 * denormalize(clusters.pixels(hot), "imagenet")
    assert (seen - pixels).abs().max() <= 8.1
    bins = ColorBinTargetConfig(num_bins=256).build(8)
    hot = F.one_hot(bins.classes(images), 256).permute(0, 1, 4, 2, 3).flatten(1, 2)
    torch.testing.assert_close(bins.pixels(hot), images)


def test_the_right_class_everywhere_costs_nothing(pixels: Tensor) -> None:
    images = normalize(pixels, "imagenet")
    clusters, bins = ColorClusterTargetConfig().build(8), ColorBinTargetConfig().build(8)
    hot = F.one_hot(clusters.classes(images), 512).permute(0, 3, 1, 2)
    assert clusters.errors(100.0 * hot, images).max() < 1e-5
    hot = F.one_hot(bins.classes(images), 8)  # (B, 3, S, S, bins)
    assert bins.errors(100.0 * hot.permute(0, 1, 4, 2, 3).flatten(1, 2), images).max() < 1e-5


def test_patches_that_look_alike_are_one_visual_word() -> None:
    """Whatever their contrast: colours are compared by direction, from the middle gray."""
    words_of = PatchQuantizer(TokenTargetConfig(num_codes=64, resolution=2), 16)
    colors = 0.3 * (2 * torch.rand(2, 3, 16, 16, generator=Generator().manual_seed(0)) - 1)
    colors[1, :, :8, 8:] = 3 * colors[0, :, 8:, :8]
    words = words_of(TokenTargetConfig().images(colors))
    assert words.shape == (2, 2, 2)
    assert words[1, 0, 1] == words[0, 1, 0]
    assert words.unique().numel() > 3


def test_the_nearest_code_is_found_in_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator().manual_seed(0)
    vectors, codes = torch.randn(3, 50, 4, generator=generator), torch.randn(9, 4, generator=generator)
    monkeypatch.setattr(quantizer, "CHUNK_SIZE", 16)
    expected = torch.cdist(vectors, codes[None].expand(3, -1, -1)).argmin(dim=2)
    assert torch.equal(nearest_codes(vectors, codes), expected)


def test_codes_are_fitted_to_groups_of_vectors() -> None:
    generator = Generator().manual_seed(0)
    centers = 10 * torch.eye(4, 6)
    labels = torch.arange(400) % 4
    vectors = centers[labels] + 0.1 * torch.randn(400, 6, generator=generator)
    codes = fit_codes(vectors, 8, generator=generator)
    assert (vectors - codes[nearest_codes(vectors[None], codes)[0]]).norm(dim=1).mean() < 0.5
    with pytest.raises(ValueError, match="8 codes cannot be fitted to 3 distinct vectors"):
        fit_codes(vectors[:3].repeat(10, 1), 8)


def test_codes_are_as_near_as_those_of_scikit_learns_mini_batch_k_means() -> None:
    """On colours of which one fills half of the pixels, as a background does."""
    generator = Generator().manual_seed(0)
    centres = 2 * torch.rand(40, 3, generator=generator) - 1
    colors = centres[torch.randint(0, 40, (20_000,), generator=generator)]
    colors = (colors + 0.1 * torch.randn(20_000, 3, generator=generator)).clamp(-1, 1)
    colors[:10_000] = centres[0]
    codes = fit_codes(colors, 64, generator=generator)
    found = (colors - codes[nearest_codes(colors[None], codes)[0]]).square().sum()
    oracle = MiniBatchKMeans(64, n_init=1, random_state=0, max_iter=100).fit(colors.numpy())
    assert found < 1.05 * oracle.inertia_
