"""New folders of shards hold the images and captions of the old ones, and are whole or not there."""

import hashlib
import io
import json
import multiprocessing
import signal
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.config.errors import UserError
from pipelines.shards.merge import merge
from pipelines.shards.subset import subset
from pipelines.shards.verify import verify
from vlp.shards.contents import ShardsManifest
from vlp.shards.indexing import index_shards
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.shard_set import ShardSet
from vlp.shards.writing import Sample, write_shard


def contents(folder: Path) -> dict[str, tuple[bytes, list[str]]]:
    """Image and captions of every sample by its URL, read as training reads them."""
    shards = ShardSet(folder)
    names = [stats.name for stats in ShardsManifest.read(folder).shards]
    tables = [pq.read_table(folder / f"{name}.parquet") for name in names]
    rows = [row for table in tables for row in table.to_pylist() if row["status"] == SUCCESS]
    return {row["url"]: (shards.image_bytes(i), shards.captions(i)) for i, row in enumerate(rows)}


def good(urls: range) -> set[int]:
    return {url for url in urls if url % 5}


def test_merged_folders_hold_every_image_once_under_fresh_keys(
    tmp_path: Path, vlp: Any, write: Any, expected: Any
) -> None:
    first = write(tmp_path / "first", range(1, 20))
    second = write(tmp_path / "second", range(15, 40))
    result = vlp("merge", first, second, "-o", tmp_path / "all")
    assert result.exit_code == 0, result.stderr
    assert list(verify(tmp_path / "all")) == []
    assert contents(tmp_path / "all") == expected(good(range(1, 40)))
    manifest = json.loads((tmp_path / "all/manifest.json").read_text())
    assert (manifest["num_urls"], manifest["num_repeated_urls"], manifest["num_repeated_keys"]) == (39, 5, 19)
    assert "5 repeated URLs left out, 19 repeated keys renamed" in result.stdout
    assert not (tmp_path / "all.tmp").exists()


def test_a_url_that_failed_in_one_folder_is_taken_from_the_other(
    tmp_path: Path, write: Any, expected: Any
) -> None:
    failed = write(tmp_path / "failed", range(1, 10), failing=lambda url: url < 6)
    fine = write(tmp_path / "fine", range(1, 10), failing=lambda url: url >= 6)
    merge([failed, fine], tmp_path / "all")
    assert contents(tmp_path / "all") == expected(set(range(1, 10)))


def columns(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Some columns of all rows of a folder."""
    shards = ShardsManifest.read(folder).shards
    tables = [pq.read_table(folder / f"{stats.name}.parquet", columns=list(names)) for stats in shards]
    return [row for table in tables for row in table.to_pylist()]


def write_scored(folder: Path, urls: range, more: pa.Schema, rows: list[dict[str, Any]]) -> Path:
    """A folder of two shards whose samples have columns of their own; its first URL failed."""
    folder.mkdir()
    samples = []
    for i, (url, values) in enumerate(zip(urls, rows, strict=True)):
        image = StoredImage(SUCCESS, None, bytes([url]), (10, 10), (10, 10), f"{url:064x}")
        stored = image if i else StoredImage("timeout", "no answer")
        samples.append(Sample(f"{i:09d}", f"http://x/{url}", [f"caption {url}"], stored, values))
    half = len(samples) // 2
    shards = [
        write_shard(folder, f"{k:05d}", part, more=more)
        for k, part in enumerate((samples[:half], samples[half:]))
    ]
    ShardsManifest.of(shards).write(folder)
    return folder


def test_columns_of_ones_own_are_selected_by_and_go_through_subset_and_merge(
    tmp_path: Path, vlp: Any
) -> None:
    scored = pa.schema({"similarity": pa.float64(), "tags": pa.list_(pa.string())})
    rows = [{"similarity": i / 10, "tags": ["x", str(i)]} for i in range(6)]
    first = write_scored(tmp_path / "first", range(6), scored, rows)
    counted = pa.schema({"similarity": pa.int64(), "source": pa.string()})
    second = write_scored(
        tmp_path / "second", range(5, 9), counted, [{"similarity": i, "source": "b"} for i in range(4)]
    )
    result = vlp("subset", first, "similarity>=0.3", "-o", tmp_path / "good")
    assert result.exit_code == 0, result.stderr
    assert columns(tmp_path / "good", "similarity", "tags") == rows[3:]
    assert vlp("merge", first, second, "-o", tmp_path / "all").exit_code == 0
    expected = [row | {"source": None} for row in rows]
    expected += [{"similarity": float(i), "tags": None, "source": "b"} for i in (1, 2, 3)]
    assert columns(tmp_path / "all", "similarity", "tags", "source") == expected
    assert list(verify(tmp_path / "all")) == []
    with tarfile.open(tmp_path / "all/00000.tar") as tar:
        member = tar.extractfile(next(name for name in tar.getnames() if name.endswith(".json")))
        assert member
        assert json.loads(member.read())["tags"] == ["x", "1"]
    for text, message in {"similarty>1": "did you mean similarity?", "similarity>x": "is double"}.items():
        refused = vlp("subset", first, text, "-o", tmp_path / "none")
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr


def test_a_column_of_any_name_is_selected_by(tmp_path: Path, vlp: Any) -> None:
    name = "score (L/14)"
    rows = [{name: i / 10} for i in range(6)]
    folder = write_scored(tmp_path / "shards", range(6), pa.schema({name: pa.float32()}), rows)
    assert vlp("subset", folder, f"{name} >= 0.4", "-o", tmp_path / "good").exit_code == 0
    assert [row["url"] for row in columns(tmp_path / "good", "url")] == ["http://x/4", "http://x/5"]


def test_columns_of_one_name_and_two_types_are_not_merged(tmp_path: Path, vlp: Any) -> None:
    folders = [
        write_scored(tmp_path / name, range(2), pa.schema({"id": kind}), [{"id": value}] * 2)
        for name, kind, value in (("a", pa.int64(), 1), ("b", pa.string(), "one"))
    ]
    result = vlp("merge", *folders, "-o", tmp_path / "all")
    assert result.exit_code == 2
    assert "a column is not of one type" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "all").exists()


def write_rows(folder: Path, rows: Sequence[tuple[str, bytes | None, list[str]]]) -> Path:
    """A folder of URLs with their images, or None of those that failed, and captions."""
    folder.mkdir()
    samples = []
    for i, (url, body, texts) in enumerate(rows):
        stored = StoredImage("timeout", "no answer")
        if body is not None:
            digest = hashlib.sha256(body).hexdigest()
            stored = StoredImage(SUCCESS, None, body, (10, 10), (10, 10), digest)
        samples.append(Sample(f"{i:09d}", url, texts, stored))
    ShardsManifest.of([write_shard(folder, "00000", samples)]).write(folder)
    return folder


def pairs(folder: Path) -> list[tuple[bytes, list[str]]]:
    shards = ShardSet(folder)
    return [(shards.image_bytes(i), shards.captions(i)) for i in range(len(shards))]


def test_files_of_the_same_name_with_other_images_are_all_kept(tmp_path: Path) -> None:
    names = [f"train-00000-of-00001.parquet#{i}" for i in range(5)]
    folders = [
        write_rows(tmp_path / part, [(name, f"{part} {name}".encode(), [part]) for name in names])
        for part in ("first", "second")
    ]
    manifest = merge(folders, tmp_path / "all")
    assert pairs(tmp_path / "all") == [pair for folder in folders for pair in pairs(folder)]
    assert manifest.described["num_repeated_urls"] == 0
    assert list(verify(tmp_path / "all")) == []


def test_a_url_has_the_captions_of_all_folders_and_each_of_its_images_its_own(tmp_path: Path) -> None:
    url, changed, local = "http://host/a", "http://host/changed", "0.parquet#0"
    first = [(url, b"a", ["one", "both"]), (changed, b"old", ["old"]), (local, None, ["of another file"])]
    second = [(url, b"a", ["both", "two"]), (changed, b"new", ["new"]), (local, b"mine", ["mine"])]
    third = [(url, None, ["failed"]), ("http://host/b", None, ["x"])]
    folders = [write_rows(tmp_path / str(i), rows) for i, rows in enumerate((first, second, third))]
    manifest = merge(folders, tmp_path / "all")
    assert pairs(tmp_path / "all") == [
        (b"a", ["one", "both", "two", "failed"]),
        (b"old", ["old"]),
        (b"new", ["new"]),
        (b"mine", ["mine"]),
    ]
    assert (manifest.num_urls, manifest.described["num_repeated_urls"]) == (6, 2)


def test_keys_that_any_tar_can_hold_go_through_every_command(tmp_path: Path) -> None:
    keys = ["k" * 141, "a/" * 60 + "b", "кот é", "a b/c"]
    source = tmp_path / "source"
    source.mkdir()
    with tarfile.open(source / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for i, key in enumerate(keys):
            add_member(tar, f"{key}.jpg", jpeg(i))
            add_member(tar, f"{key}.txt", f"caption of {key}".encode())
    index_shards(source)
    expected = [(jpeg(i), [f"caption of {key}"]) for i, key in enumerate(keys)]
    subset(source, ["status==success"], tmp_path / "subset")
    merge([source, tmp_path / "subset"], tmp_path / "merged")
    for folder in (source, tmp_path / "subset", tmp_path / "merged"):
        assert sorted(pairs(folder)) == sorted(expected)
        assert list(verify(folder)) == []


def test_a_key_that_leads_out_of_its_folder_is_left_out_and_never_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with tarfile.open(source / "0.tar", "w") as tar:
        for i, key in enumerate(["../evil", "/abs/x", "good", "a/../../x"]):
            add_member(tar, f"{key}.jpg", jpeg(i))
            add_member(tar, f"{key}.txt", b"caption")
    assert index_shards(source).outcomes == {"success": 1, "unsafe_name": 3}
    assert pairs(source) == [(jpeg(2), ["caption"])]
    subset(source, ["width>0"], tmp_path / "subset")
    with tarfile.open(tmp_path / "subset/00000.tar") as tar:
        assert {Path(name).stem for name in tar.getnames()} == {"good"}
    table = pq.read_table(source / "0.parquet")  # as an index of before says it
    status = pa.array([SUCCESS] * 4)
    place = table.schema.get_field_index("status")
    offsets = pa.array([512] * 4, pa.int64())
    table = table.set_column(place, "status", status).set_column(
        table.schema.get_field_index("image_offset"), "image_offset", offsets
    )
    pq.write_table(
        table.set_column(table.schema.get_field_index("image_size"), "image_size", offsets),
        source / "0.parquet",
    )
    with pytest.raises(UserError, match=r"the key '\.\./evil' leads out of a folder"):
        subset(source, ["status==success"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20 + seed, 30), (seed * 40, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


def merge_slowly(folders: list[Path], output: Path, is_started: Any) -> None:
    from pipelines.shards import reshard

    write_whole = reshard.write_shard

    def announce(*arguments: Any, **settings: Any) -> Any:
        done = write_whole(*arguments, **settings)
        is_started.set()
        signal.pause()  # until it is killed
        return done

    reshard.write_shard = announce
    merge(folders, output)


def test_a_killed_merge_leaves_nothing_that_looks_whole(tmp_path: Path, write: Any, expected: Any) -> None:
    folders = [write(tmp_path / "first", range(1, 20)), write(tmp_path / "second", range(20, 40))]
    context = multiprocessing.get_context("spawn")
    is_started = context.Event()
    process = context.Process(target=merge_slowly, args=(folders, tmp_path / "all", is_started))
    process.start()
    assert is_started.wait(60)
    process.kill()
    process.join()
    assert not (tmp_path / "all").exists()
    assert list((tmp_path / "all.tmp").glob("*.tar"))
    assert not list(tmp_path.glob("all*/manifest.json"))
    merge(folders, tmp_path / "all")
    assert list(verify(tmp_path / "all")) == []
    assert contents(tmp_path / "all") == expected(good(range(1, 40)))


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_a_subset_holds_the_listed_samples_under_their_keys(
    kind: str, folder: Path, tmp_path: Path, vlp: Any, expected: Any
) -> None:
    keys = [f"{number:09d}" for number in (2, 3, 17)]
    file = tmp_path / f"keys.{kind}"
    if kind == "txt":
        file.write_text("\n".join([*keys, "unknown", ""]))
    else:
        pq.write_table(pa.table({"key": [*keys, "unknown"]}), file)
    result = vlp("subset", folder, f"keys={file}", "-o", tmp_path / "some")
    assert result.exit_code == 0, result.stderr
    assert list(verify(tmp_path / "some")) == []
    assert contents(tmp_path / "some") == expected({3, 4, 18})
    assert pq.read_table(tmp_path / "some/00000.parquet")["key"].to_pylist() == keys


def test_a_subset_obeys_every_comparison(folder: Path, tmp_path: Path, vlp: Any, expected: Any) -> None:
    result = vlp("subset", folder, "width > 105", "status==success", "width<=112", "-o", tmp_path / "some")
    assert result.exit_code == 0, result.stderr
    assert contents(tmp_path / "some") == expected({6, 7, 8, 9, 11, 12})
    manifest = json.loads((tmp_path / "some/manifest.json").read_text())
    assert manifest["num_urls"] == manifest["num_samples"] == 6


MISTAKES = {
    "no folder": (["verify", "nowhere"], "no such folder: nowhere"),
    "no shards": (["describe", "."], "is not a folder of shards"),
    "one folder": (["merge", "shards", "-o", "out"], "name at least two folders"),
    "output exists": (["merge", "shards", "shards", "-o", "shards"], "shards exists already"),
    "no keys": (["subset", "shards", "keys=nowhere.txt", "-o", "out"], "no such file: nowhere.txt"),
    "column": (["subset", "shards", "widht>3", "-o", "out"], "no column 'widht'; did you mean width?"),
    "value": (["subset", "shards", "width>wide", "-o", "out"], "width is int32, which 'wide' is not"),
    "neither": (
        ["subset", "shards", "width", "-o", "out"],
        "it is not a comparison such as 'width>=256', nor keys=FILE or selection=FOLDER",
    ),
    "nothing": (["subset", "shards", "width>9999", "-o", "out"], "no row is selected"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, vlp: Any
) -> None:
    monkeypatch.chdir(folder.parent)
    arguments, line = MISTAKES[kind]
    result = vlp(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit), result.exception
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert [file.name for file in folder.parent.iterdir()] == ["shards"]
