"""No image takes more time or memory than a worker plans for one, whatever it is made of."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from pipelines.compute.child_process import ChildProcess
from pipelines.ingest.failure import Download
from pipelines.ingest.isolated import DEADLINE, IsolatedImageStore
from pipelines.ingest.settings import DownloadConfig
from vlp.shards.outcome import SUCCESS, StoredImage

PIXELS = 4_000_000
BYTES_PER_PIXEL = 36
"""What the manual plans."""


def encoded(mode: str, kind: str, size: tuple[int, int] = (2000, PIXELS // 2000), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def many_scans(count: int) -> bytes:
    """A small file that takes minutes to decode: a progressive JPEG whose last scan is repeated."""
    plain = encoded("L", "JPEG", (1000, 1000), progressive=True, quality=5)
    last = plain.rindex(b"\xff\xda")
    return plain[:-2] + plain[last:-2] * count + plain[-2:]


GOOD = encoded("RGB", "JPEG", (300, 200))


@pytest.fixture
def open_store() -> Iterator[Any]:
    stores: list[IsolatedImageStore] = []

    def make(**settings: Any) -> IsolatedImageStore:
        stores.append(IsolatedImageStore(DownloadConfig(url_list=Path("unused"), **settings)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def store(image_store: IsolatedImageStore, body: bytes) -> StoredImage:
    return image_store(Download(SUCCESS, None, body))


def decoder() -> psutil.Process:
    """The process that images are decoded in."""
    children = psutil.Process().children()
    return next(child for child in children if "pipelines.ingest.isolated" in child.cmdline())


def test_an_image_that_takes_too_long_has_an_outcome_and_the_next_one_its_image(open_store: Any) -> None:
    image_store = open_store(decode_timeout=0.5)
    body = many_scans(20_000)
    assert len(body) < 32 * 2**20
    stored = store(image_store, body)
    assert (stored.outcome, stored.error) == ("decode_timeout", "takes more than 0.5 s")
    assert store(image_store, GOOD).outcome == SUCCESS


def test_nothing_that_decoders_say_of_an_image_is_printed(
    open_store: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of scans out of order, and of so many pixels that Pillow warns."""
    image_store = open_store(decode_timeout=600)
    assert store(image_store, many_scans(2)).outcome == SUCCESS
    assert store(image_store, encoded("1", "PNG", (9500, 9500))).outcome == SUCCESS
    assert capfd.readouterr() == ("", "")


def test_a_decoder_that_nobody_waits_for_ends_by_itself() -> None:
    """What a worker leaves behind that is killed while an image is decoded."""
    child = ChildProcess("pipelines.ingest.isolated")
    child.send(DownloadConfig(url_list=Path("unused"), decode_timeout=0.5))
    assert child.receive() == "ready"
    child.send(Download(SUCCESS, None, many_scans(20_000)))
    assert child.exit_code() == -DEADLINE
    child.kill()


def peak_bytes(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGBA", "WEBP", {}),
        ("RGBA", "TIFF", {}),
        ("P", "GIF", {"transparency": 0}),
        ("RGBA", "AVIF", {}),
        ("RGBA", "JPEG2000", {}),
    ],
)
def test_the_memory_of_an_image_is_what_the_readme_plans(
    mode: str, kind: str, options: dict[str, Any], open_store: Any
) -> None:
    image_store = open_store(decode_timeout=600)
    assert store(image_store, GOOD).outcome == SUCCESS
    before = peak_bytes(decoder())
    assert store(image_store, encoded(mode, kind, **options)).outcome == SUCCESS
    assert peak_bytes(decoder()) - before < BYTES_PER_PIXEL * PIXELS
