"""`vlp data`: damage is found; new folders hold the bytes of the old ones, whole or not at all."""

import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.config import fingerprint
from pipelines.data_tools.merge import merge
from pipelines.data_tools.verify import verify
from pipelines.ingest.outcome import SUCCESS, StoredImage
from pipelines.ingest.shard import Sample, write_json, write_shard
from vlp.data.shards import ShardSet
from vlp.pictures.distributions import Histogram

ROWS = 7


def vlp(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def write(folder: Path, urls: range, *, failing: Callable[[int], bool] = lambda url: url % 5 == 0) -> Path:
    """A folder as `vlp download` makes it: image and captions follow from the number of the URL."""
    folder.mkdir(parents=True)
    shards = []
    for start in range(0, len(urls), ROWS):
        samples = [sample(start + i, url, failing(url)) for i, url in enumerate(urls[start : start + ROWS])]
        shards.append(write_shard(folder, f"{start // ROWS:05d}", samples))
    successes, count = (sum(shard[key] for shard in shards) for key in ("successes", "count"))
    outcomes = {"http_404": count - successes, SUCCESS: successes}
    manifest = {
        "num_urls": count,
        "num_samples": successes,
        "outcomes": {k: n for k, n in outcomes.items() if n},
    }
    digest = fingerprint([shard["tar_sha256"] for shard in shards])
    write_json(folder / "manifest.json", manifest | {"digest": digest, "shards": shards})
    return folder


def sample(number: int, url: int, is_failed: bool) -> Sample:
    body = bytes([url % 256]) * (100 + 37 * url)  # tools copy images; none decodes them
    size = (100 + url, 200)
    image = StoredImage(SUCCESS, None, body, size, size, f"{url:064x}")
    failure = StoredImage("http_404", "HTTP Error 404: Not Found")
    texts = [f"caption {i} of {url}: gr\u00f6\u00dfer" for i in range(1 + url % 3)]
    return Sample(f"{number:09d}", f"http://host{url % 2}/{url}", texts, failure if is_failed else image)


def contents(folder: Path) -> dict[str, tuple[bytes, list[str]]]:
    """Image and captions of every sample by its URL, read as training reads them."""
    shards = ShardSet(folder)
    tables = [pq.read_table(folder / f"{shard['name']}.parquet") for shard in shards.manifest["shards"]]
    rows = [row for table in tables for row in table.to_pylist() if row["status"] == SUCCESS]
    return {row["url"]: (shards.image_bytes(i), shards.captions(i)) for i, row in enumerate(rows)}


def expected(urls: set[int]) -> dict[str, tuple[bytes, list[str]]]:
    samples = [sample(0, url, False) for url in urls]
    return {s.url: (s.image.encoded or b"", s.captions) for s in samples}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "shards", range(1, 20))


def good(urls: range) -> set[int]:
    return {url for url in urls if url % 5}


def test_a_whole_folder_has_no_problem(folder: Path) -> None:
    assert list(verify(folder)) == []
    result = vlp("verify", folder)
    assert (result.exit_code, result.stdout) == (0, f"{folder}: whole\n")


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "00001.tar").read_bytes())
    content[600] ^= 1
    (folder / "00001.tar").write_bytes(content)


def edit_index(folder: Path, column: str, change: Callable[[list[Any]], list[Any]]) -> None:
    file = folder / "00001.parquet"
    table = pq.read_table(file)
    place = table.column_names.index(column)
    values = change(table[column].to_pylist())
    pq.write_table(table.set_column(place, table.schema.field(column), [values]), file)


def edit_manifest(folder: Path, **changes: Any) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite_tar(folder: Path) -> None:
    """A tar of the same samples whose caption was changed and whose checksum is right."""
    with tarfile.open(folder / "00001.tar") as tar:
        texts = [member for member in tar if member.name.endswith(".txt")]
    content = bytearray((folder / "00001.tar").read_bytes())
    content[texts[0].offset_data] ^= 1
    (folder / "00001.tar").write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(folder / "00001.tar", 3000)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit": (flip_a_byte, "00001.tar: its checksum is not that of"),
    "another caption": (rewrite_tar, "is not the caption of the index"),
    "a cut tar": (truncate, "00001.tar: 3,000 bytes"),
    "no tar": (lambda f: (f / "00001.tar").unlink(), "00001.tar: missing"),
    "no index": (lambda f: (f / "00001.parquet").unlink(), "00001.parquet: cannot be read"),
    "no stats": (lambda f: (f / "00001_stats.json").unlink(), "00001_stats.json: missing"),
    "a torn index": (lambda f: os.truncate(f / "00001.parquet", 100), "00001.parquet: cannot be read"),
    "an offset": (
        lambda f: edit_index(f, "image_offset", lambda x: [o and o + 512 for o in x]),
        "the index says",
    ),
    "a size": (lambda f: edit_index(f, "image_size", lambda x: [s and s - 1 for s in x]), "the index says"),
    "an outcome": (lambda f: edit_index(f, "status", lambda x: ["tls", *x[1:]]), "00001.parquet: holds"),
    "a key": (
        lambda f: edit_index(f, "key", lambda x: ["000000000", *x[1:]]),
        "1 keys are those of",
    ),
    "a total": (
        lambda f: edit_manifest(f, num_samples=3),
        "num_samples is 3, its shards make 16",
    ),
    "a digest": (lambda f: edit_manifest(f, digest="x"), "manifest.json: digest is x"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json: missing or no JSON"),
    "a stranger": (lambda f: (f / "00009.tar").write_bytes(b""), "00009.tar: is not in manifest.json"),
    "a leftover": (lambda f: (f / "00001.tar.a.tmp").write_bytes(b""), "00001.tar.a.tmp: left by a writer"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_in_one_line_and_the_exit_code(kind: str, folder: Path) -> None:
    damage, line = DAMAGE[kind]
    damage(folder)
    result = vlp("verify", folder)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    found = [text for text in result.stdout.splitlines() if line in text]
    assert len(found) >= 1, result.stdout
    assert "whole" not in result.stdout


def test_a_shard_that_is_torn_in_many_places_fills_no_page(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", range(1, 8), failing=lambda _: False)
    file = folder / "00000.parquet"
    table = pq.read_table(file)
    moved = [offset + 1 for offset in table["image_offset"].to_pylist()]
    place = table.column_names.index("image_offset")
    pq.write_table(table.set_column(place, table.schema.field("image_offset"), [moved]), file)
    problems = list(verify(folder))
    assert len(problems) == 6
    assert problems[-1] == "00000: more such problems"


def test_merged_folders_hold_every_image_once_under_fresh_keys(tmp_path: Path) -> None:
    first = write(tmp_path / "first", range(1, 20))
    second = write(tmp_path / "second", range(15, 40))
    result = vlp("merge", first, second, "-o", tmp_path / "all")
    assert result.exit_code == 0, result.stderr
    assert list(verify(tmp_path / "all")) == []
    assert contents(tmp_path / "all") == expected(good(range(1, 40)))
    manifest = json.loads((tmp_path / "all/manifest.json").read_text())
    assert (manifest["num_urls"], manifest["num_repeated_urls"], manifest["num_repeated_keys"]) == (39, 5, 19)
    assert "5 repeated URLs left out, 19 repeated keys renamed" in result.stdout
    assert not (tmp_path / "all.partial").exists()


def test_a_url_that_failed_in_one_folder_is_taken_from_the_other(tmp_path: Path) -> None:
    failed = write(tmp_path / "failed", range(1, 10), failing=lambda url: url < 6)
    fine = write(tmp_path / "fine", range(1, 10), failing=lambda url: url >= 6)
    merge([failed, fine], tmp_path / "all")
    assert contents(tmp_path / "all") == expected(set(range(1, 10)))


def merge_slowly(folders: list[Path], output: Path, is_started: Any) -> None:
    from pipelines.data_tools import reshard

    write_whole = reshard.write_shard

    def announce(*arguments: Any) -> Any:
        done = write_whole(*arguments)
        is_started.set()
        signal.pause()  # until it is killed
        return done

    reshard.write_shard = announce
    merge(folders, output)


def test_a_killed_merge_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    folders = [write(tmp_path / "first", range(1, 20)), write(tmp_path / "second", range(20, 40))]
    context = multiprocessing.get_context("spawn")
    is_started = context.Event()
    process = context.Process(target=merge_slowly, args=(folders, tmp_path / "all", is_started))
    process.start()
    assert is_started.wait(60)
    process.kill()
    process.join()
    assert not (tmp_path / "all").exists()
    assert list((tmp_path / "all.partial").glob("*.tar"))
    assert not list(tmp_path.glob("all*/manifest.json"))
    merge(folders, tmp_path / "all")
    assert list(verify(tmp_path / "all")) == []
    assert contents(tmp_path / "all") == expected(good(range(1, 40)))


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_a_subset_holds_the_listed_samples_under_their_keys(kind: str, folder: Path, tmp_path: Path) -> None:
    keys = [f"{number:09d}" for number in (2, 3, 17)]
    file = tmp_path / f"keys.{kind}"
    if kind == "txt":
        file.write_text("\n".join([*keys, "unknown", ""]))
    else:
        import pyarrow as pa

        pq.write_table(pa.table({"key": [*keys, "unknown"]}), file)
    result = vlp("subset", folder, f"keys={file}", "-o", tmp_path / "some")
    assert result.exit_code == 0, result.stderr
    assert list(verify(tmp_path / "some")) == []
    assert contents(tmp_path / "some") == expected({3, 4, 18})
    assert pq.read_table(tmp_path / "some/00000.parquet")["key"].to_pylist() == keys


def test_a_subset_obeys_every_comparison(folder: Path, tmp_path: Path) -> None:
    result = vlp("subset", folder, "width > 105", "status==success", "width<=112", "-o", tmp_path / "some")
    assert result.exit_code == 0, result.stderr
    assert contents(tmp_path / "some") == expected({6, 7, 8, 9, 11, 12})
    manifest = json.loads((tmp_path / "some/manifest.json").read_text())
    assert manifest["num_urls"] == manifest["num_samples"] == 6


MISTAKES = {
    "no folder": (["verify", "nowhere"], "no such folder: nowhere"),
    "no shards": (["describe", "."], "is no folder of shards"),
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
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    arguments, line = MISTAKES[kind]
    result = vlp(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit), result.exception
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert [file.name for file in folder.parent.iterdir()] == ["shards"]


def test_the_card_counts_what_is_there(folder: Path) -> None:
    result = vlp("describe", folder)
    assert result.exit_code == 0, result.stderr
    card = (folder / "card/card.md").read_text()
    assert card == result.stdout
    captions = sum(1 + url % 3 for url in good(range(1, 20)))
    for line in (
        "| images | 16 |",
        f"| captions | {captions} |",
        "| http_404 | 3 | 15.79% |",
        "| host1 | 8 |",
    ):
        assert line in card
    assert (folder / "card/distributions.png").stat().st_size > 5000
    assert list(verify(folder)) == []  # the card is no stranger


def test_quantiles_are_those_of_the_numbers() -> None:
    values = np.random.default_rng(0).integers(0, 150, 1000)
    histogram = Histogram.empty("numbers", highest=100)
    for part in np.array_split(values, 7):
        histogram.add(part)
    clipped = np.sort(values.clip(max=100))
    assert histogram.counts.sum() == 1000
    for share in (0.05, 0.25, 0.5):
        assert histogram.quantile(share) == clipped[round(share * 1000) - 1]
    assert histogram.quantile(1) == 100
    assert Histogram.empty("none", highest=10).quantile(0.5) == 0
