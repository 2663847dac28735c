"""Folders of Hugging Face `datasets` are URL lists and sources of images, without that library."""

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.errors import UserError
from pipelines.ingest.download import plan
from pipelines.ingest.plan import read_urls
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.tables import ArrowCells, read_columns
from pipelines.ingest.worker import IngestShard
from vlp.shards.storage.address import open_folder

FEATURES = {
    "image": {"_type": "Image"},
    "caption": {"dtype": "string", "_type": "Value"},
    "texts": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "url": {"dtype": "string", "_type": "Value"},
}
SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "caption": pa.string(),
        "texts": pa.list_(pa.string()),
        "url": pa.string(),
    },
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


@pytest.fixture(scope="module")
def images(tiny_world: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((tiny_world / "train").glob("*.jpg"))]


def table(images: Sequence[bytes], first: int = 0) -> pa.Table:
    rows = [
        {
            "image": {"bytes": image, "path": f"{i}.jpg"},
            "caption": f"caption {i}",
            "texts": [f"caption {i}", f"größer {i}"],
            "url": f"http://x/{i}.jpg",
        }
        for i, image in enumerate(images, start=first)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def save_to_disk(rows: pa.Table, folder: Path, *, num_files: int = 1, split: str | None = "train") -> Path:
    """What `Dataset.save_to_disk` writes: Arrow streams of record batches, and what they are."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{num_files:05d}.arrow" for i in range(num_files)]
    size = -(-len(rows) // num_files)
    for i, name in enumerate(names):
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, rows.schema) as writer,
        ):
            writer.write_table(rows.slice(i * size, size), max_chunksize=3)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    (folder / "cache-0123456789abcdef.arrow").write_bytes(b"of a function that was mapped")
    return folder


def write_saved(images: list[bytes], folder: Path) -> Path:
    return save_to_disk(table(images), folder, num_files=3, split=None)


def write_saved_splits(images: list[bytes], folder: Path) -> Path:
    save_to_disk(table(images[:16]), folder / "train")
    save_to_disk(table(images[16:], 16), folder / "test", split="test")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return folder


def write_hub(images: list[bytes], folder: Path) -> Path:
    """What `push_to_hub` uploads and a clone of the repository holds."""
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nconfigs: []\n---\n")
    parts = {"train-00000-of-00002": (0, 9), "train-00001-of-00002": (9, 16), "test-00000-of-00001": (16, 24)}
    for name, (start, stop) in parts.items():
        pq.write_table(table(images[start:stop], start), folder / f"data/{name}.parquet", row_group_size=4)
    return folder


LAYOUTS = {"saved": write_saved, "splits": write_saved_splits, "hub": write_hub}


def ingest(output: Path, **settings: Any) -> list[tuple[bytes, list[str]]]:
    """Image and captions of every sample of the shards that a source becomes."""
    config = DownloadConfig(number_sample_per_shard=5, resize_mode="no", **settings)
    current = plan(config, output)
    worker = IngestShard(config, open_folder(output), 1, lambda *_: True)
    found = []
    for name in current.shards:
        assert worker({"name": name})["failure"] == ""
        tar = (output / f"{name}.tar").read_bytes()
        for row in pq.read_table(output / f"{name}.parquet").to_pylist():
            assert row["status"] == "success", row
            found.append((tar[row["image_offset"] :][: row["image_size"]], row["captions"]))
    return found


@pytest.fixture(scope="module")
def expected(images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, list[str]]]:
    """What the same images become when they lie in a folder."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(images):
        (folder / f"{i:03d}.jpg").write_bytes(image)
        (folder / f"{i:03d}.txt").write_text(f"caption {i}\ngrößer {i}\n")
    return ingest(folder.with_name("expected"), url_list=folder, input_format="images")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_captions_are_those_of_the_same_files_in_a_folder(
    layout: str, images: list[bytes], expected: Any, tmp_path: Path
) -> None:
    folder = LAYOUTS[layout](images, tmp_path / "data_set")
    settings = {"url_list": folder, "image_col": "image", "caption_col": "texts"}
    if layout == "saved":
        assert ingest(tmp_path / "shards", **settings) == expected
    else:
        assert ingest(tmp_path / "shards", **settings, split="train+test") == expected
        assert ingest(tmp_path / "test", **settings, split="test") == expected[16:]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_column_of_urls_is_a_url_list(layout: str, images: list[bytes], tmp_path: Path) -> None:
    folder = LAYOUTS[layout](images, tmp_path / "data_set")
    split = None if layout == "saved" else "train+test"
    config = DownloadConfig(url_list=folder, split=split)
    (name,) = plan(config, tmp_path / "shards").shards
    rows = [(row["url"], row["captions"]) for row in read_urls(open_folder(tmp_path / "shards"), name)]
    assert rows == [(f"http://x/{i}.jpg", [f"caption {i}"]) for i in range(24)]


def test_one_split_or_one_file_is_a_source_of_its_own(
    images: list[bytes], expected: Any, tmp_path: Path
) -> None:
    folder = write_saved_splits(images, tmp_path / "data_set")
    settings = {"image_col": "image", "caption_col": "texts"}
    assert ingest(tmp_path / "split", url_list=folder / "train", **settings) == expected[:16]
    file = folder / "test/data-00000-of-00001.arrow"
    assert ingest(tmp_path / "file", url_list=file, **settings) == expected[16:]


def test_rows_are_found_in_any_order_and_images_never_all_in_memory(tmp_path: Path) -> None:
    body = bytes(2**20)
    folder = save_to_disk(table([body] * 40), tmp_path / "data_set")
    file = folder / "data-00000-of-00001.arrow"
    allocated = pa.total_allocated_bytes()
    tracemalloc.start()
    cells = ArrowCells(file, "image")
    assert [cells[i]["path"] for i in (39, 0, 17, 18, 2)] == [f"{i}.jpg" for i in (39, 0, 17, 18, 2)]
    captions = [row["caption"] for part in read_columns(file, ["caption"]) for row in part.to_pylist()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert captions == [f"caption {i}" for i in range(40)]
    assert peak < 8 * 2**20
    assert pa.total_allocated_bytes() - allocated < 8 * 2**20


def break_state(folder: Path) -> None:
    (folder / "state.json").write_text('{"_data_files": 3}')


def lose_a_file(folder: Path) -> None:
    (folder / "data-00001-of-00003.arrow").unlink()


def cut_a_file(folder: Path) -> None:
    file = folder / "data-00001-of-00003.arrow"
    file.write_bytes(file.read_bytes()[:-3000])


def select_rows(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i.arrow"}]}))


MISTAKES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "torn state": (break_state, {}, "state.json is not what `save_to_disk` writes"),
    "lost file": (lose_a_file, {}, "is not complete: state.json names data-00001-of-00003.arrow"),
    "cut file": (cut_a_file, {}, "data-00001-of-00003.arrow is not a valid arrow file"),
    "selection": (select_rows, {}, "flatten_indices"),
    "column": (None, {"image_col": "img"}, "has no column 'img'"),
    "captions": (None, {"caption_col": "captoin"}, "did you mean caption?"),
    "url column": (None, {"image_col": None, "url_col": "link"}, "has no column 'link'"),
    "split": (None, {"split": "tset"}, "has no split 'tset'"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_one_line_before_anything_is_written(
    kind: str, images: list[bytes], tmp_path: Path
) -> None:
    damage, settings, message = MISTAKES[kind]
    folder = write_saved(images, tmp_path / "data_set")
    if damage:
        damage(folder)
    with pytest.raises(UserError) as raised:
        plan(DownloadConfig(**({"url_list": folder, "image_col": "image"} | settings)), tmp_path / "shards")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("layout", ["splits", "hub"])
def test_of_several_splits_one_has_to_be_named(layout: str, images: list[bytes], tmp_path: Path) -> None:
    folder = LAYOUTS[layout](images, tmp_path / "data_set")
    with pytest.raises(UserError, match=r"has the splits (train, test|test, train); choose one with split="):
        plan(DownloadConfig(url_list=folder), tmp_path / "shards")


def test_a_split_of_something_else_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text("url,caption\nhttp://x/,a\n")
    with pytest.raises(UserError, match="is not a folder of Hugging Face datasets; leave it out"):
        plan(DownloadConfig(url_list=tmp_path / "urls.csv", split="train"), tmp_path / "shards")
