"""`vlp data verify` finds damage of every kind."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.shards.verify import verify


def test_a_whole_folder_has_no_problem(folder: Path, vlp: Any) -> None:
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
def test_damage_is_named_in_one_line_and_the_exit_code(kind: str, folder: Path, vlp: Any) -> None:
    damage, line = DAMAGE[kind]
    damage(folder)
    result = vlp("verify", folder)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    found = [text for text in result.stdout.splitlines() if line in text]
    assert len(found) >= 1, result.stdout
    assert "whole" not in result.stdout


def test_a_shard_that_is_torn_in_many_places_fills_no_page(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "shards", range(1, 8), failing=lambda _: False)
    file = folder / "00000.parquet"
    table = pq.read_table(file)
    moved = [offset + 1 for offset in table["image_offset"].to_pylist()]
    place = table.column_names.index("image_offset")
    pq.write_table(table.set_column(place, table.schema.field("image_offset"), [moved]), file)
    problems = list(verify(folder))
    assert len(problems) == 6
    assert problems[-1] == "00000: more such problems"
