"""Images that lie on disk become the shards that the same images, served over HTTP, would become."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import csv

from pipelines.config.errors import UserError
from pipelines.corpus.serve import ImageServer
from pipelines.ingest.download import plan
from pipelines.ingest.duplicates import drop
from pipelines.ingest.plan import add_retry, read_urls
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.worker import IngestShard
from vlp.shards.storage.address import open_folder

CAPTIONS = [["one", "two"], ["größer 日本"], [], ["last"]]


@pytest.fixture(scope="module")
def images(tiny_world: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((tiny_world / "train").glob("*.jpg"))[:4]]


LOCAL: Any = {"allowed_networks": ("127.0.0.0/8",)}


def ingest(output: Path, **settings: Any) -> list[dict[str, Any]]:
    """The index of the only shard."""
    config = DownloadConfig(image_size=24, **LOCAL, **settings)
    plan(config, output)
    done = IngestShard(config, open_folder(output), 1, lambda *_: True)({"name": "00000"})
    assert done["failure"] == ""
    return pq.read_table(output / "00000.parquet").to_pylist()


def images_and_captions(output: Path, rows: list[dict[str, Any]]) -> list[tuple[bytes, list[str], str]]:
    tar = (output / "00000.tar").read_bytes()
    places = [(row["image_offset"], row["image_size"]) for row in rows]
    return [
        (tar[o : o + n], row["captions"], row["sha256"]) for (o, n), row in zip(places, rows, strict=True)
    ]


@pytest.fixture(scope="module")
def served(
    images: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[bytes, list[str], str]]:
    """What the same images become when they are fetched."""
    folder = tmp_path_factory.mktemp("served")
    for i, image in enumerate(images):
        (folder / f"{i}.jpg").write_bytes(image)
    with ImageServer(folder) as server:
        rows = [{"url": f"{server.url}/{i}.jpg", "caption": texts} for i, texts in enumerate(CAPTIONS)]
        (folder / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        index = ingest(folder / "shards", url_list=folder / "urls.jsonl")
    return images_and_captions(folder / "shards", index)


def test_a_folder_of_images_with_captions(images: list[bytes], served: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    names = ["a/0.jpg", "a/1.JPEG", "b/0.jpg", "c.jpg"]
    for name, image, captions in zip(names, images, CAPTIONS, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image)
        if captions:
            (folder / name).with_suffix(".txt").write_text("\n".join(captions) + "\n")
    (folder / "d.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("of no image")
    rows = ingest(tmp_path / "shards", url_list=folder, input_format="images")
    assert [row["url"] for row in rows] == [*names, "d.png"]
    assert rows[-1]["status"] == "not_an_image"
    assert images_and_captions(tmp_path / "shards", rows[:-1]) == served


def test_files_of_every_name_and_format_are_read_or_named_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    kinds = {"a.v2.jpg": "JPEG", "b.JFIF": "JPEG", "c.GIF": "GIF", "d.Tif": "TIFF", "e.avif": "AVIF"}
    for name, kind in kinds.items():
        Image.new("RGB", (30, 20), "red").save(folder / name, kind)
        ending = ".TXT" if name.endswith("F") else ".txt"
        (folder / name).with_suffix(ending).write_text(f"caption of {name}")
    (folder / "g.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    rows = ingest(tmp_path / "shards", url_list=folder, input_format="images")
    assert [row["url"] for row in rows] == [*kinds, "g.HEIC"]
    assert [row["captions"] for row in rows[:-1]] == [[f"caption of {name}"] for name in kinds]
    assert {row["status"] for row in rows[:-1]} == {"success"}
    assert (rows[-1]["status"], rows[-1]["error_message"]) == ("decode", "the format HEIC is not read")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_folder_of_images_with_a_metadata_file(kind: str, images: list[bytes], tmp_path: Path) -> None:
    """As `datasets` has them; a .txt file beside an image says more than it."""
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    names = ["a.jpg", "b/a.jpg", "b/c.JPG", "d.jpg"]
    for name, image in zip(names, images, strict=True):
        (folder / name).write_bytes(image)
    (folder / "d.txt").write_text("beside it\n")
    texts = ["one", "größer, 2", "three", "not this"]
    table = pa.table({"file_name": names, "text": texts, "n": [1, 2, 3, 4]})
    file = folder / f"metadata.{kind}"
    if kind == "parquet":
        pq.write_table(table, file)
    elif kind == "csv":
        csv.write_csv(table, file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    settings = {"url_list": folder, "input_format": "images"}
    rows = ingest(tmp_path / "shards", **settings, caption_col="text")
    assert {row["url"]: row["captions"] for row in rows} == dict(
        zip(names, [["one"], ["größer, 2"], ["three"], ["beside it"]], strict=True)
    )
    with pytest.raises(UserError, match=rf"metadata\.{kind} has no column 'caption'"):
        ingest(tmp_path / "other", **settings)


def test_images_alone_from_a_folder_and_a_column(images: list[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(images[0])
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,x\n")
    pq.write_table(pa.table({"image": images}), tmp_path / "images.parquet")
    lists = [
        {"url_list": folder, "input_format": "images"},
        {"url_list": tmp_path / "images.parquet", "image_col": "image"},
    ]
    for i, settings in enumerate(lists):
        rows = ingest(tmp_path / str(i), caption_col=None, **settings)
        assert {row["status"] for row in rows} == {"success"}
        assert [(row["caption"], row["captions"]) for row in rows] == [(None, [])] * len(rows)
        stats = json.loads((tmp_path / str(i) / "00000_stats.json").read_text())
        assert stats["without_captions"] == len(rows)
    rows = ingest(tmp_path / "long", caption_col=None, min_caption_length=1, **lists[0])
    assert [row["status"] for row in rows] == ["caption"]


@pytest.mark.parametrize("as_struct", [False, True])
def test_images_in_parquet_files(as_struct: bool, images: list[bytes], served: Any, tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    cells: list[Any] = [{"bytes": image, "path": None} for image in images] if as_struct else images
    for name, part in (("0.parquet", slice(0, 3)), ("1.parquet", slice(3, 4))):
        table = pa.table({"image": cells[part], "text": CAPTIONS[part]})
        pq.write_table(table, folder / name, row_group_size=2)
    settings = {"url_list": folder, "image_col": "image", "caption_col": "text"}
    rows = ingest(tmp_path / "shards", **settings)
    assert [row["url"] for row in rows] == ["0.parquet#0", "0.parquet#1", "0.parquet#2", "1.parquet#0"]
    assert images_and_captions(tmp_path / "shards", rows) == served


def test_further_columns_are_in_the_index_of_every_shard(images: list[bytes], tmp_path: Path) -> None:
    """Of failures and duplicates, too, and after a retry and a second writing of the shard."""
    values = {"similarity": [0.5, None, 0.25], "n": [1, 2, 3]}
    cells = {"image": [images[0], images[0], b"no image"], "caption": list("abc")}
    pq.write_table(pa.table(cells | values), tmp_path / "images.parquet")
    settings: Any = {"url_list": tmp_path / "images.parquet", "image_col": "image"}
    settings |= {"save_additional_columns": tuple(values)}
    rows = ingest(tmp_path / "shards", **settings)
    assert {name: [row[name] for row in rows] for name in values} == values
    output = open_folder(tmp_path / "shards")
    drop(output, "00000", {rows[1]["key"]: ("duplicate", "as another")})
    again = output.table("00000.parquet")
    assert again.select(list(values)).to_pydict() == values
    assert again["status"].to_pylist() == ["success", "duplicate", "not_an_image"]
    made = plan(DownloadConfig(image_size=24, **LOCAL, **settings), output)
    retried = add_retry(made, output, only=[], shard_size=9)
    assert read_urls(output, retried.shards[-1])[0]["more"] == {"similarity": 0.25, "n": 3}
    with pytest.raises(ValueError, match="the index has a column 'width' of its own"):
        DownloadConfig(url_list=tmp_path, save_additional_columns=("width",))


def test_what_cannot_be_read_has_outcomes(images: list[bytes], tmp_path: Path) -> None:
    cells = [images[0], None, b"", b"no image"]
    pq.write_table(pa.table({"image": cells, "caption": list("abcd")}), tmp_path / "images.parquet")
    settings = {"url_list": tmp_path / "images.parquet", "image_col": "image"}
    outcomes = [row["status"] for row in ingest(tmp_path / "shards", **settings)]
    assert outcomes == ["success", "unreadable", "not_an_image", "not_an_image"]
    limits = {"max_body_bytes": len(images[0]) - 1}
    assert ingest(tmp_path / "other", **settings, **limits)[0]["status"] == "too_large"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_format": "images"}, "no folder with images"),
        ({"image_col": "picture"}, "has no column 'picture'"),
        ({"image_col": "image", "caption_col": "captoin"}, "did you mean caption?"),
    ],
)
def test_mistakes_are_one_line(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "caption": ["x"]}), tmp_path / "images.parquet")
    url_list = tmp_path if "input_format" in settings else tmp_path / "images.parquet"
    with pytest.raises(UserError) as raised:
        plan(DownloadConfig(url_list=url_list, **settings), tmp_path / "shards")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "shards").exists()
