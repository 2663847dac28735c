"""Folders of shards whose images, which no tool decodes, and captions follow from the number of the URL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipelines.commands.main import main
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.writing import Sample, write_shard

ROWS = 7


def run_vlp(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def is_multiple_of_5(url: int) -> bool:
    return url % 5 == 0


def write_folder(
    folder: Path, urls: range, *, failing: Callable[[int], bool] = lambda url: url % 5 == 0
) -> Path:
    """A folder as `vlp download` makes it: image and captions follow from the number of the URL."""
    folder.mkdir(parents=True)
    shards = []
    for start in range(0, len(urls), ROWS):
        samples = [
            make_sample(start + i, url, failing(url)) for i, url in enumerate(urls[start : start + ROWS])
        ]
        shards.append(write_shard(folder, f"{start // ROWS:05d}", samples))
    ShardsManifest.of(shards).write(folder)
    return folder


def make_sample(number: int, url: int, is_failed: bool) -> Sample:
    body = bytes([url % 256]) * (100 + 37 * url)
    size = (100 + url, 200)
    image = StoredImage(SUCCESS, None, body, size, size, f"{url:064x}")
    failure = StoredImage("http_404", "HTTP Error 404: Not Found")
    texts = [f"caption {i} of {url}: gr\u00f6\u00dfer" for i in range(1 + url % 3)]
    return Sample(f"{number:09d}", f"http://host{url % 2}/{url}", texts, failure if is_failed else image)


@pytest.fixture
def vlp() -> Callable[..., Result]:
    """`vlp data` with some arguments."""
    return run_vlp


@pytest.fixture
def write() -> Callable[..., Path]:
    """Writes a folder of a range of URLs; by default every fifth one failed."""
    return write_folder


@pytest.fixture
def expected() -> Callable[[set[int]], dict[str, tuple[bytes, list[str]]]]:
    """Image and captions of some URLs."""

    def contents(urls: set[int]) -> dict[str, tuple[bytes, list[str]]]:
        samples = [make_sample(0, url, False) for url in urls]
        return {sample.url: (sample.image.encoded or b"", sample.captions) for sample in samples}

    return contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "shards", range(1, 20))
