"""Augmentations have the distributions and the pixels of torchvision's, and are drawn from one generator."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from vlp.data.augmentation import (
    Augmentation,
    ColorJitter,
    augment,
    change_colors,
    draw_augmentation,
    draw_crop,
    draw_jitter,
)
from vlp.data.config import DataConfig, Interpolation
from vlp.data.transforms import Box, EncodedImage, to_tensor

TorchvisionJitter: Any = transforms.ColorJitter  # these say Tensor and take images, too
RandomResizedCrop: Any = transforms.RandomResizedCrop
tv: Any = functional
ks_2samp: Any = stats.ks_2samp  # says nothing of its result
SUPERCLASS = (0.32, 0.32, 0.32, 0.08)
ALL = DataConfig(
    horizontal_flip_prob=0.5, color_jitter=SUPERCLASS, color_jitter_prob=0.8, gray_scale_prob=0.2
)


def photograph(width: int, height: int, *, detail: int = 8) -> Image.Image:
    """Smooth shapes in many colours."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (detail, detail, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def view(image: Image.Image, augmentation: Augmentation, interpolation: Interpolation = "bicubic") -> Tensor:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    config = DataConfig(interpolation=interpolation)
    return augment(EncodedImage(stream.getvalue()), augmentation, config, size=64)


def draws(config: DataConfig, count: int = 2000) -> list[Augmentation]:
    rng = np.random.default_rng(0)
    return [draw_augmentation((120, 90), config, rng) for _ in range(count)]


@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize("size", [(200, 200), (240, 160), (120, 200), (250, 90)])
def test_crops_are_distributed_as_those_of_torchvision(
    size: tuple[int, int], scale: tuple[float, float]
) -> None:
    rng = np.random.default_rng(0)
    found = np.array([draw_crop(size, scale, rng) for _ in range(1000)])
    torch.manual_seed(0)
    image = Image.new("RGB", size)
    params = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(1000)]
    expected = np.array([(left, top, w, h) for top, left, h, w in params])
    for k, name in enumerate(Box._fields):
        assert ks_2samp(found[:, k], expected[:, k]).pvalue > 1e-4, name


def test_a_square_image_is_cropped_wide_and_tall_equally_often() -> None:
    rng = np.random.default_rng(0)
    found = [draw_crop((200, 200), (0.3, 0.7), rng) for _ in range(1600)]
    share = np.mean([(box.width > box.height) + (box.width == box.height) / 2 for box in found])
    assert abs(share - 0.5) < 4 * (0.25 / 1600) ** 0.5  # a uniform aspect ratio is wide in 57 %


@pytest.mark.parametrize("config", [ALL, replace(ALL, color_jitter_prob=0.0, gray_scale_prob=1.0)])
def test_each_augmentation_is_as_frequent_as_its_setting_says(config: DataConfig) -> None:
    found = draws(config)
    for share, expected in [
        (np.mean([a.is_flipped for a in found]), config.horizontal_flip_prob),
        (np.mean([a.jitter is not None for a in found]), config.color_jitter_prob),
        (np.mean([a.is_gray for a in found]), config.gray_scale_prob),
    ]:
        assert abs(share - expected) <= 4 * (expected * (1 - expected) / len(found)) ** 0.5


def test_augmentations_are_chosen_independently() -> None:
    found = draws(ALL)
    columns = [[a.is_flipped, a.jitter is not None, a.is_gray, a.crop.left, a.crop.width] for a in found]
    correlation = np.corrcoef(np.array(columns, dtype=float).T)
    assert np.abs(correlation[:3][:, :3] - np.eye(3)).max() < 4 / len(found) ** 0.5
    assert np.abs(correlation[:3, 3:]).max() < 4 / len(found) ** 0.5


def test_a_setting_changes_what_it_is_for_and_nothing_else() -> None:
    for one, other in zip(draws(ALL), draws(replace(ALL, horizontal_flip_prob=0.0)), strict=True):
        assert other == one._replace(is_flipped=False)
    for one, other in zip(draws(DataConfig()), draws(ALL), strict=True):
        assert one == Augmentation(other.crop, is_flipped=False, jitter=None, is_gray=False)


@pytest.mark.parametrize("strength", [SUPERCLASS, (1.5, 0.0, 0.4, 0.5)])
def test_jitter_is_distributed_as_that_of_torchvision(strength: tuple[float, float, float, float]) -> None:
    rng = np.random.default_rng(0)
    found = [draw_jitter(strength, rng) for _ in range(1000)]
    torch.manual_seed(0)
    jitter = TorchvisionJitter(*strength)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    params = [TorchvisionJitter.get_params(*ranges) for _ in range(1000)]
    for k in range(4):
        ours, theirs = [f.factors[k] for f in found], [p[k + 1] for p in params]
        if theirs[0] is None:  # a strength of 0
            assert set(ours) == {1.0}
        else:
            assert ks_2samp(ours, theirs).pvalue > 1e-4
        for place in range(4):
            share = np.mean([f.order[place] == k for f in found])
            assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 1000) ** 0.5


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("box", [Box(0, 0, 120, 90), Box(13, 7, 81, 80), Box(20, 30, 40, 33)])
def test_a_crop_has_the_pixels_of_torchvisions_on_pillow(box: Box, interpolation: Interpolation) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    found = view(image, Augmentation(box, is_flipped=False, jitter=None, is_gray=False), interpolation)
    mode = tv.InterpolationMode(interpolation)
    expected = tv.resized_crop(image, box.top, box.left, box.height, box.width, [64, 64], mode)
    difference = (found.int() - to_tensor(expected).int()).abs()
    assert difference.float().mean() < 0.1
    assert difference.max() <= 1


def test_crops_of_a_jpeg_that_is_decoded_small_lie_where_they_lie_in_the_whole_one() -> None:
    """Nearer than whole pixels of the small image would."""
    rng, image, stream = np.random.default_rng(0), photograph(256, 256, detail=24), io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    encoded, whole = EncodedImage(stream.getvalue()), Image.open(stream)

    def expected(picture: Image.Image, box: Box) -> Tensor:
        mode = tv.InterpolationMode.BICUBIC
        crop = tv.resized_crop(picture, box.top, box.left, box.height, box.width, [64, 64], mode)
        return to_tensor(crop).float()

    found, rounded = [], []
    for _ in range(60):
        box = draw_crop((256, 256), (0.3, 1.0), rng)
        plain = Augmentation(box, is_flipped=False, jitter=None, is_gray=False)
        view = augment(encoded, plain, DataConfig(), size=64).float()
        pixels, scale = encoded.decode_for(box, min_size=64)
        near = expected(Image.fromarray(pixels), Box(*(length // scale for length in box)))
        found.append((view - expected(whole, box)).abs().mean())
        rounded.append((near - expected(whole, box)).abs().mean())
    assert np.mean(found) < 3
    assert np.mean(found) < np.mean(rounded) / 2


def test_a_flip_mirrors_the_crop() -> None:
    plain = Augmentation(Box(13, 7, 81, 80), is_flipped=False, jitter=None, is_gray=False)
    image = photograph(120, 90)
    expected = tv.hflip(Image.fromarray(view(image, plain).permute(1, 2, 0).numpy()))
    assert torch.equal(view(image, plain._replace(is_flipped=True)), to_tensor(expected))


def test_a_gray_image_is_torchvisions_with_three_equal_channels() -> None:
    plain = Augmentation(Box(0, 0, 120, 90), is_flipped=False, jitter=None, is_gray=False)
    image = photograph(120, 90)
    picture = Image.fromarray(view(image, plain).permute(1, 2, 0).numpy())
    expected = to_tensor(tv.rgb_to_grayscale(picture, num_output_channels=3))
    found = view(image, plain._replace(is_gray=True))
    assert (found.int() - expected.int()).abs().max() <= 1
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize("seed", range(6))
def test_changed_colors_have_the_pixels_of_torchvisions(seed: int) -> None:
    jitter = draw_jitter(SUPERCLASS, np.random.default_rng(seed))
    image = to_tensor(photograph(60, 40))
    expected = image.float() / 255
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for change in jitter.order:
        expected = changes[change](expected, jitter.factors[change])
    difference = (change_colors(image, jitter) / 255 - expected).abs()
    assert difference.mean() < 3 / 255  # Pillow rounds after every change, and its hue has 256 steps


def test_factors_that_change_nothing_leave_the_image() -> None:
    image = to_tensor(photograph(60, 40))
    strength_of_none = draw_jitter((0, 0, 0, 0), np.random.default_rng(0))
    for jitter in (ColorJitter((1, 1, 1, 0), (0, 1, 2, 3)), strength_of_none):
        assert torch.equal(change_colors(image, jitter), image)


@pytest.mark.parametrize(
    "settings",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.9, 0.5)},
        {"crop_scale": (0.5, 1.1)},
        {"horizontal_flip_prob": 1.5},
        {"color_jitter_prob": -0.1},
        {"gray_scale_prob": 2.0},
        {"color_jitter": (0.4, 0.4, 0.4, 0.6)},
        {"color_jitter": (-0.1, 0.0, 0.0, 0.0)},
    ],
)
def test_an_impossible_augmentation_is_named(settings: dict) -> None:
    (key,) = settings
    with pytest.raises(ValueError, match=rf"^{key} must"):
        DataConfig(**settings)
