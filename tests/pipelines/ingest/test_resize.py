"""What is stored of an image is what img2dataset's resizer makes of it, though it is not used as it is."""

import importlib.util
import io
import itertools
import os
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.ingest.failure import Download
from pipelines.ingest.image import ImageStore, read_header
from pipelines.ingest.resize import Header, Resizer
from pipelines.ingest.settings import DownloadConfig, ResizeMode
from vlp.shards.outcome import StoredImage


@pytest.fixture(scope="module")
def oracle() -> Any:
    """img2dataset's resizer as it is."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    package: Any = importlib.util.find_spec("img2dataset")
    file = Path(package.submodule_search_locations[0]) / "resizer.py"
    spec: Any = importlib.util.spec_from_file_location("img2dataset_resizer", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Resizer


def photograph(width: int, height: int, mode: str = "RGB", kind: str = "PNG", blur: float = 2) -> bytes:
    """Smooth random colours, as a photograph's."""
    rng = np.random.default_rng(width * height)
    pixels = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), (0, 0), blur)
    pixels = cv2.normalize(pixels, np.empty_like(pixels), 0, 255, cv2.NORM_MINMAX)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


def store(body: bytes, **settings: Any) -> StoredImage:
    return ImageStore(DownloadConfig(url_list=Path("unused"), **settings))(Download("success", None, body))


def pixels_of(encoded: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(float)


SIZES = [(100, 80), (80, 100), (64, 64), (65, 200), (40, 30), (30, 90)]


@pytest.mark.parametrize("mode", get_args(ResizeMode))
@pytest.mark.parametrize("only_if_bigger", [True, False])
def test_every_mode_gives_img2datasets_bytes(mode: ResizeMode, only_if_bigger: bool, oracle: Any) -> None:
    theirs = oracle(64, mode, only_if_bigger, encode_quality=90)
    for size, kind in itertools.product(SIZES, ("RGB", "L", "RGBA")):
        body = photograph(*size, mode=kind)
        ours = store(
            body, image_size=64, resize_mode=mode, resize_only_if_bigger=only_if_bigger, encode_quality=90
        )
        encoded, width, height, original_width, original_height, error = theirs(io.BytesIO(body))
        assert error is None
        assert (ours.size, ours.original_size) == ((width, height), (original_width, original_height))
        assert ours.encoded == encoded


def test_a_transparent_image_of_several_parts_gives_img2datasets_bytes(oracle: Any) -> None:
    body = photograph(513, 300, mode="RGBA")  # is laid on white part by part
    assert store(body, image_size=256).encoded == oracle(256, "keep_ratio", True)(io.BytesIO(body))[0]


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ({"min_image_size": 81}, "too_small"),
        ({"max_aspect_ratio": 1.2}, "aspect"),
        ({"max_image_area": 7999}, "too_large"),
        ({"min_image_size": 80, "max_aspect_ratio": 1.25, "max_image_area": 8000}, "success"),
    ],
)
def test_the_size_alone_may_refuse_an_image(settings: dict[str, float], outcome: str) -> None:
    assert store(photograph(100, 80), **settings).outcome == outcome


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_large_jpeg_files_look_the_same_when_decoded_at_a_part_of_their_size(
    mode: str, factor: int, oracle: Any
) -> None:
    size = (128 * factor, 140 * factor)
    body = photograph(*size, mode=mode, kind="JPEG", blur=4 * factor)
    ours = store(body, image_size=64, encode_quality=95).encoded
    theirs = oracle(64, "keep_ratio", True, encode_quality=95)(io.BytesIO(body))[0]
    assert ours is not None
    assert np.abs(pixels_of(ours) - pixels_of(theirs)).mean() < 3.0  # of 255, for noise; 1.4 for photographs


def test_a_turned_photograph_is_stored_as_its_pixels_lie() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    for factor in (1, 8):  # decoded as a whole, and at a part of its size
        stream = io.BytesIO()
        Image.open(io.BytesIO(photograph(70 * factor, 100 * factor))).save(stream, "JPEG", exif=exif)
        assert store(stream.getvalue(), image_size=64).size == (64, 91)


def test_deep_pixels_keep_their_brightness() -> None:
    deep = np.full((40, 50), 128 * 257, np.uint16)
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "PNG")
    encoded = store(stream.getvalue(), image_size=32).encoded
    assert encoded is not None
    assert pixels_of(encoded).mean() == pytest.approx(128, abs=1)


def test_the_shorter_side_is_exactly_the_one_asked_for() -> None:
    resizer = Resizer(DownloadConfig(url_list=Path("unused"), image_size=224))
    for side in range(225, 700, 7):
        body = photograph(side, side + 3, kind="BMP")
        assert resizer(body, read_header(body)).size[0] == 224


def test_a_header_says_what_an_image_is_without_decoding_it() -> None:
    assert read_header(photograph(30, 20, "L", "JPEG")[:500]) == Header("JPEG", "L", (30, 20))


@pytest.mark.parametrize("kind", [".png", ".tiff", ".pnm", ".jp2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_images_of_every_format_keep_their_colours(kind: str, channels: int) -> None:
    pixels = np.full((40, 50, channels), 40_000, np.uint16)
    pixels[..., 0] = 20_000
    expected = pixels[0, 0, ::-1] // 256
    encoded = store(cv2.imencode(kind, pixels)[1].tobytes(), image_size=32).encoded
    assert encoded is not None
    assert pixels_of(encoded).mean(axis=(0, 1)) == pytest.approx(np.broadcast_to(expected, 3), abs=2)


def test_white_is_what_a_file_says_it_is() -> None:
    body = b"P5 50 40 1023\n" + (512).to_bytes(2, "big") * 2000
    encoded = store(body, image_size=32).encoded
    assert encoded is not None
    assert pixels_of(encoded).mean() == pytest.approx(128, abs=1)


@pytest.mark.parametrize("depth", [8, 16])
def test_what_is_transparent_is_white_at_every_depth(depth: int) -> None:
    highest = 2**depth - 1
    pixels = np.zeros((40, 80, 4), np.uint8 if depth == 8 else np.uint16)
    pixels[:, 40:] = (0, 0, highest, highest)  # red, and the other half transparent
    encoded = store(cv2.imencode(".png", pixels)[1].tobytes(), image_size=40).encoded
    assert encoded is not None
    left, right = np.split(pixels_of(encoded), 2, axis=1)
    assert left[:, :32].min() > 250
    assert right[:, 8:].mean(axis=(0, 1)) == pytest.approx((255, 0, 0), abs=4)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_pixels_whose_brightness_is_not_known_are_not_stored(scale: float) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 50), 0.5 * scale, np.float32)).save(stream, "TIFF")
    stored = store(stream.getvalue())
    assert (stored.outcome, stored.encoded) == ("decode", None)
    assert "float32" in (stored.error or "")


@pytest.mark.parametrize(("kind", "channels"), [("float32", 3), ("float32", 4), ("float64", 3), ("int32", 3)])
def test_a_tiff_of_other_numbers_is_named_by_what_it_holds(kind: str, channels: int) -> None:
    pixels = np.full((40, 50, channels), 0.5).astype(kind)
    stored = store(cv2.imencode(".tiff", pixels)[1].tobytes())
    numbers = "signed" if kind == "int32" else "floating-point"
    bits = ", ".join([kind[-2:]] * channels)
    assert stored == StoredImage("decode", f"a TIFF of {numbers} samples of {bits} bits is not read")


@pytest.mark.parametrize("body", [b"II*\0\x08", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0"])
def test_a_tiff_that_breaks_off_is_damaged(body: bytes) -> None:
    assert store(body).outcome == "decode"


def test_formats_that_nothing_reads_are_named() -> None:
    assert store(b"\0\0\0\x18ftypheic" + bytes(20)).error == "the format HEIC is not read"
    assert store(b"\xff\x0a" + bytes(20)).error == "the format JPEG XL is not read"
