"""Pixels are those that Pillow and open_clip see; normalization has its textbook values."""

import io
import math
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv

from vlp.core.normalization import MEAN_STD, Normalization, denormalize, normalize
from vlp.data.transforms import Box, EncodedImage, center_crop, decode, to_tensor


def coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red channel is the column and whose green channel is the row."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(pixels)


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    """Smooth shapes with some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    return Image.fromarray((pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("shape", [(64, 64), (100, 80), (81, 120), (64, 200), (90, 31), (75, 225)])
@pytest.mark.parametrize("size", [32, 49])
def test_the_evaluation_crop_has_the_pixels_of_open_clips(shape: tuple[int, int], size: int) -> None:
    image = photograph(*shape)
    mean, std = MEAN_STD["clip"]
    transform: Any = open_clip.image_transform(size, is_train=False, mean=mean, std=std)
    theirs = transform(image)
    found = normalize(to_tensor(center_crop(image, size))[None], "clip")[0]
    torch.testing.assert_close(found, theirs)


def test_a_jpeg_has_the_pixels_of_pillow() -> None:
    encoded = jpeg(photograph(120, 90))
    pixels, scale = EncodedImage(encoded).decode_for(Box(11, 7, 60, 45), min_size=40)
    assert scale == 1
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(encoded))))


@pytest.mark.parametrize("shape", [(1000, 803), (801, 1007)])
@pytest.mark.parametrize(("min_size", "scale"), [(320, 1), (200, 2), (101, 4), (30, 8)])
def test_a_large_jpeg_is_decoded_small_and_shows_the_same_part(
    shape: tuple[int, int], min_size: int, scale: int
) -> None:
    image = photograph(*shape)
    box = Box(104, 48, 624, 696)
    pixels, found = EncodedImage(jpeg(image)).decode_for(box, min_size=min_size)
    assert found == scale
    assert pixels.shape == (math.ceil(shape[1] / scale), math.ceil(shape[0] / scale), 3)
    bounds = (box.left, box.top, box.left + box.width, box.top + box.height)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC, bounds), dtype=float)
    left, top, right, bottom = (bound / scale for bound in bounds)
    small = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC, (left, top, right, bottom))
    seen = np.asarray(small, dtype=float)
    assert np.abs(seen - expected).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_any_kind_of_picture_has_its_pixels(mode: str) -> None:
    stream = io.BytesIO()
    original = photograph(30, 20).convert(mode)
    original.save(stream, "JPEG" if mode in ("L", "CMYK") else "PNG")
    found, _ = EncodedImage(stream.getvalue()).decode_for(Box(3, 5, 20, 10), min_size=10)
    expected = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    tolerance = 1 if mode == "CMYK" else 0  # inks are turned into colours with another rounding
    assert np.abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_any_kind_of_picture_is_decoded_to_rgb(mode: str) -> None:
    stream = io.BytesIO()
    original = coordinates(30, 20).convert(mode)
    original.save(stream, "TIFF" if mode == "CMYK" else "PNG")
    decoded = decode(stream.getvalue())
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(original.convert("RGB")))


@pytest.mark.parametrize("encoded", [b"", b"no picture", b"\xff\xd8\xff\xe0 broken"])
def test_bytes_that_are_no_image_are_an_error(encoded: bytes) -> None:
    with pytest.raises((ValueError, OSError)):
        decode(encoded)


def test_a_truncated_image_is_an_error() -> None:
    broken = jpeg(photograph(64, 64))[:1000]
    with pytest.raises(OSError, match="truncated"):
        decode(broken)
    for min_size in (40, 10):  # whole, and at half the scale
        with pytest.raises((ValueError, OSError)):
            EncodedImage(broken).decode_for(Box(0, 0, 40, 40), min_size=min_size)


@pytest.mark.parametrize("normalization", ["clip", "imagenet"])
def test_normalization_is_torchvisions_and_is_undone(normalization: Normalization) -> None:
    pictures = [coordinates(20, 20).rotate(90 * k) for k in range(3)]
    images = torch.stack([to_tensor(picture) for picture in pictures])
    found = normalize(images, normalization)
    mean, std = (list(values) for values in MEAN_STD[normalization])
    expected = torch.stack([tv.normalize(tv.to_tensor(picture), mean, std) for picture in pictures])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(denormalize(found, normalization), images / 255)
