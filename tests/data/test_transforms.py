"""Crops have torchvision's distribution; pixels and normalization their textbook values."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import CenterCrop, RandomResizedCrop
from torchvision.transforms import functional as tv

from vlp.data.transforms import center_crop, decode, random_resized_crop, to_tensor
from vlp.normalization import MEAN_STD, Normalization, denormalize, normalize

SIZE = 64


def coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red channel is the column and whose green channel is the row."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(pixels)


def box(crop: Image.Image) -> tuple[float, float, float, float]:
    """Left, top, width and height of the part of `coordinates` that became the crop."""
    inner = np.arange(8, SIZE - 8)  # the filter is cut off at the border
    pixels = np.asarray(crop, dtype=float)[8:-8, 8:-8]
    (w, left), (h, top) = (np.polyfit((inner + 0.5) / SIZE, pixels[..., k].mean(axis=k), 1) for k in (0, 1))
    return left + 0.5, top + 0.5, w, h


@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize("shape", [(200, 200), (240, 160), (120, 200), (250, 90)])
def test_crops_are_distributed_as_those_of_torchvision(
    shape: tuple[int, int], scale: tuple[float, float]
) -> None:
    image, rng = coordinates(*shape), np.random.default_rng(0)
    found = np.array([box(random_resized_crop(image, SIZE, scale=scale, rng=rng)) for _ in range(400)])
    torch.manual_seed(0)
    params = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(400)]
    expected = np.array([(left, top, w, h) for top, left, h, w in params], dtype=float)
    for name, ours, theirs in [
        ("left", found[:, 0], expected[:, 0]),
        ("top", found[:, 1], expected[:, 1]),
        ("width", found[:, 2], expected[:, 2]),
        ("height", found[:, 3], expected[:, 3]),
    ]:
        assert ks_2samp(np.round(ours), theirs).pvalue > 1e-4, name


def test_a_square_image_is_cropped_wide_and_tall_equally_often() -> None:
    image, rng = coordinates(200, 200), np.random.default_rng(0)
    found = np.array([box(random_resized_crop(image, SIZE, scale=(0.3, 0.7), rng=rng)) for _ in range(1600)])
    is_wide = found[:, 2] > found[:, 3]
    assert abs(is_wide.mean() - 0.5) < 4 * (0.25 / 1600) ** 0.5  # a uniform aspect ratio is wide in 57 %


def test_a_crop_has_the_pixels_of_torchvisions_crop() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    crop = random_resized_crop(image, 32, scale=(1.0, 1.0), rng=np.random.default_rng(1))
    candidates = [
        tv.resized_crop(image, top, left, h, w, [32, 32], tv.InterpolationMode.BICUBIC)
        for h in range(80, 91)
        for w in range(round(90 * 120 / h) - 1, min(120, round(90 * 120 / h) + 1) + 1)
        for top in range(90 - h + 1)
        for left in range(120 - w + 1)
    ]
    assert any(np.array_equal(crop, candidate) for candidate in candidates)


def test_the_generator_decides_the_crop() -> None:
    image = coordinates(200, 150)
    crops = [
        random_resized_crop(image, SIZE, scale=(0.3, 1.0), rng=np.random.default_rng(seed)).tobytes()
        for seed in (0, 0, *range(1, 9))
    ]
    assert crops[0] == crops[1]
    assert len(set(crops)) == 9


@pytest.mark.parametrize("shape", [(64, 64), (100, 80), (81, 120), (64, 200)])
def test_the_evaluation_crop_is_torchvisions_resize_and_center_crop(shape: tuple[int, int]) -> None:
    image = coordinates(*shape)
    resized = tv.resize(image, [SIZE], tv.InterpolationMode.BICUBIC)
    expected = np.asarray(CenterCrop(SIZE)(resized), dtype=float)
    found = np.asarray(center_crop(image, SIZE), dtype=float)
    # torchvision rounds the resized side and the offset to whole pixels.
    assert np.abs(found - expected).max() <= 2 + max(shape) / SIZE


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_any_kind_of_picture_is_decoded_to_rgb(mode: str) -> None:
    stream = io.BytesIO()
    original = coordinates(30, 20).convert(mode)
    original.save(stream, "TIFF" if mode == "CMYK" else "PNG")
    decoded = decode(stream.getvalue())
    assert decoded.mode == "RGB"
    assert np.array_equal(decoded, original.convert("RGB"))


@pytest.mark.parametrize("encoded", [b"", b"no picture", b"\xff\xd8\xff\xe0 broken"])
def test_bytes_that_are_no_image_are_an_error(encoded: bytes) -> None:
    with pytest.raises((ValueError, OSError)):
        decode(encoded)


def test_a_truncated_image_is_an_error() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        stream, "JPEG"
    )
    with pytest.raises(OSError, match="truncated"):
        decode(stream.getvalue()[:1000])


@pytest.mark.parametrize("normalization", ["clip", "imagenet"])
def test_normalization_is_torchvisions_and_is_undone(normalization: Normalization) -> None:
    pictures = [coordinates(20, 20).rotate(90 * k) for k in range(3)]
    images = torch.stack([to_tensor(picture) for picture in pictures])
    found = normalize(images, normalization)
    mean, std = (list(values) for values in MEAN_STD[normalization])
    expected = torch.stack([tv.normalize(tv.to_tensor(picture), mean, std) for picture in pictures])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(denormalize(found, normalization), images / 255)
