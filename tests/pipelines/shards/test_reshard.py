"""New folders of shards hold the images and captions of the old ones, and are whole or not there."""

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.shards.merge import merge
from pipelines.shards.verify import verify
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS
from vlp.shards.shard_set import ShardSet


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


def merge_slowly(folders: list[Path], output: Path, is_started: Any) -> None:
    from pipelines.shards import reshard

    write_whole = reshard.write_shard

    def announce(*arguments: Any) -> Any:
        done = write_whole(*arguments)
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
    "neither": (["subset", "shards", "width", "-o", "out"], "is neither keys=FILE nor a comparison"),
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
