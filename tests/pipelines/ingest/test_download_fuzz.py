"""No bytes, URL, list or caption stops a download: each ends in an outcome, or in one line beforehand."""

import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.config.errors import UserError
from pipelines.ingest.failure import Download, Failure
from pipelines.ingest.grouping import group_by_url
from pipelines.ingest.image import ImageStore
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.url_list import Columns, read_url_list
from pipelines.ingest.web_address import parse_url
from vlp.shards.outcome import is_outcome

Mutation = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 20)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def fill(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(rng.randint(1, 64)) + content[start + 32 :]


def head(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randint(1, 40)] + rng.randbytes(rng.randint(0, 2000))


def sizes(content: bytes, rng: random.Random) -> bytes:
    """Large numbers near the beginning, where formats keep the size of the image."""
    start = rng.randrange(min(len(content), 64))
    return content[:start] + b"\xff" * rng.randint(1, 4) + content[start + 4 :]


MUTATIONS: list[Mutation] = [flip, cut, fill, head, sizes]


def encode(kind: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    stream = io.BytesIO()
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    (deep if mode == "I;16" else Image.fromarray(pixels).convert(mode)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_damaged_images_end_in_an_outcome(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    store = ImageStore(DownloadConfig(url_list=Path("unused"), image_size=32, drop_duplicates="near"))
    whole = encode(kind)
    outcomes = Counter[str]()
    for seed in range(100):
        rng = random.Random(seed)
        stored = store(Download("success", None, MUTATIONS[seed % len(MUTATIONS)](whole, rng)))
        assert is_outcome(stored.outcome)
        assert (stored.encoded is not None) == (stored.outcome == "success")
        if stored.encoded is not None:
            assert Image.open(io.BytesIO(stored.encoded)).size == stored.size
        outcomes[stored.outcome] += 1
    assert {"not_an_image", "decode"} & set(outcomes)
    assert store(Download("success", None, whole)).outcome == "success"
    print("still here")
    assert "still here" in capfd.readouterr().out  # the resizer gives stdout back


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
        *(("TIFF", mode) for mode in ("1", "L", "RGB", "RGBA", "F")),
        *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
        *(("GIF", mode) for mode in ("L", "P", "RGB")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
        ("PPM", "RGB"),
    ],
)
def test_every_kind_of_pixel_ends_in_an_outcome(kind: str, mode: str) -> None:
    store = ImageStore(DownloadConfig(url_list=Path("unused"), image_size=32, drop_duplicates="near"))
    stored = store(Download("success", None, encode(kind, mode)))
    assert stored.outcome in ("success", "decode")
    if stored.encoded is not None:
        assert Image.open(io.BytesIO(stored.encoded)).size == (40, 32) == stored.size


def test_any_text_is_a_web_address_or_an_invalid_url() -> None:
    rng = random.Random(0)
    pieces = [
        "http",
        "https",
        "ftp",
        ":",
        "//",
        "/",
        "[",
        "]",
        "@",
        "?",
        "#",
        "%",
        "..",
        "\\",
        "a.org",
        "127.0.0.1",
        "::1",
        "xn--",
        "ü",
        "日本",
        "\u202e",
        "�",
        "999999",
        "-",
    ]
    pieces += [" ", "\t", "\n", "\0", "a" * 70]
    accepted = 0
    for _ in range(3000):
        url = rng.choice(["", "http://", "https://"]) + "".join(rng.choices(pieces, k=rng.randint(0, 6)))
        parsed = parse(url)
        if isinstance(parsed, Failure):
            assert parsed.outcome == "invalid_url"
            continue
        accepted += 1
        origin, target = parsed
        assert origin.scheme in ("http", "https")
        assert (origin.host + target).isascii()
        assert not set(origin.host + target) & set(" \r\n\t\0")
    assert 200 < accepted < 2800


def parse(url: str) -> Any:
    try:
        return parse_url(url)
    except Failure as failure:
        return failure


LISTS = {
    "csv": b'url,caption\nhttp://a/1,one\nhttp://a/2,"two, or\nmore"\nhttp://a/3,\n' * 4,
    "tsv": b"url\tcaption\nhttp://a/1\tone\nhttp://a/2\ttwo\n" * 4,
    "jsonl": b'{"url": "http://a/1", "caption": ["one", null]}\n{"url": "http://a/2", "caption": []}\n' * 4,
}


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"url": [f"http://a/{i}" for i in range(50)], "caption": ["x"] * 50}), stream)
    return stream.getvalue()


def read(file: Path) -> list[dict[str, Any]] | str:
    """The rows of a list, or the message that refuses it."""
    try:
        rows = read_url_list([file], Columns(url="url", caption="caption"), input_format="auto")
        return pa.concat_tables(group_by_url(rows, max_bytes=2**28)).to_pylist()
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("suffix", [*LISTS, "parquet"])
def test_a_damaged_list_is_read_or_refused_in_one_line(suffix: str, tmp_path: Path) -> None:
    whole = LISTS.get(suffix) or parquet()
    file = tmp_path / f"urls.{suffix}"
    num_refused = 0
    for seed in range(100):
        file.write_bytes(MUTATIONS[seed % 4](whole, random.Random(seed)))
        rows = read(file)
        if isinstance(rows, str):
            assert file.name in rows
            assert "\n" not in rows
            num_refused += 1
            continue
        for row in rows:
            assert row["url"]
            assert all(isinstance(caption, str) for caption in row["captions"])
    assert num_refused > 0


@pytest.mark.parametrize(
    "content",
    [
        b'{"url": 1, "caption": 2}\n',
        b'{"url": {"a": 1}, "caption": "x"}\n',
        b'{"url": "http://a", "caption": {"a": 1}}\n',
        b'{"url": "http://a", "caption": [["x"]]}\n',
        b'{"url": "http://a", "caption": "\\ud800"}\n',
        b'{"url": ["http://a"], "caption": "x"}\n',
        b'[{"url": "http://a", "caption": "x"}]\n',
        b'{"url": "http://a", "caption": "x"}\n{"url": "http://b", "caption": 3}\n',
        b"\xff\xfeu\0r\0l\0",
        b"null\n",
    ],
)
def test_lists_of_other_types_are_read_or_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "urls.jsonl"
    file.write_bytes(content)
    rows = read(file)
    assert "\n" not in rows if isinstance(rows, str) else all(isinstance(row["url"], str) for row in rows)


@pytest.mark.parametrize("values", [[b"\xff\xfe"], [1.5], [True], [None], [{"a": 1}], [["x"]]])
def test_parquet_columns_of_other_types_are_read_or_refused_in_one_line(values: Any, tmp_path: Path) -> None:
    for column in ("url", "caption"):
        texts = {"url": ["http://a"], "caption": ["x"]} | {column: values}
        pq.write_table(pa.table(texts), tmp_path / "urls.parquet")
        rows = read(tmp_path / "urls.parquet")
        assert "\n" not in rows if isinstance(rows, str) else all(isinstance(row["url"], str) for row in rows)
