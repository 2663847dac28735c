"""Shards that others wrote, img2dataset's or webdataset's, made readable in place: an index beside each."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.shards.contents import ShardsManifest, ShardStats, stats_file
from vlp.shards.img2dataset import outcome_of
from vlp.shards.index_schema import INDEX_SCHEMA, count_without_captions
from vlp.shards.manifest import MANIFEST
from vlp.shards.outcome import SUCCESS
from vlp.shards.storage.local import LocalFolder
from vlp.shards.storage.whole import delete_unfinished, writing
from vlp.shards.tar_samples import (
    BROKEN_TAR,
    NO_IMAGE,
    REPEATED_KEY,
    USUAL,
    Endings,
    TarSamples,
    read_samples,
)
from vlp.shards.writing import find_examples

OURS = {b"made_by": b"vlp"}
"""Metadata of an index that nobody else wrote parts of."""
THEIRS = b"columns_of_others"
"""Metadata of an index: the columns of a Parquet file that was there before it."""
MISSING = (BROKEN_TAR, NO_IMAGE)
"""What becomes of a success that the tar does not hold."""
FORMER_COUNTS = "status_dict_of_img2dataset"
"""Key of the counts of a _stats.json as they were, in place of which ours are there."""
RECOUNTED = ("captions", "status", "error_message", "image_offset", "image_size", "shard")
"""Columns that say how the tar is read; what else a Parquet file beside it holds is kept."""


def list_tars(folder: Path) -> list[Path]:
    """The tars of a folder, in the order of their names.

    Raises:
        ValueError: there is none.
    """
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        below = next(iter(sorted(folder.glob("*/*.tar"))), None)
        hint = f"; name {below.parent}, which does" if below else ""
        raise ValueError(f"{folder} holds no tar file{hint}")
    return tars


def index_shards(folder: Path, endings: Endings = USUAL) -> ShardsManifest:
    """Write an index of every tar of a folder, and the manifest, last; returns the manifest.

    A shard whose index is there already is not read again, so work that was interrupted goes on.

    Raises:
        ValueError: there is no tar, or a Parquet file beside one is about other samples.
    """
    manifest = ShardsManifest.of(index_shard(tar, endings) for tar in list_tars(folder))
    for pattern in ("*.parquet", stats_file("*"), MANIFEST):
        delete_unfinished(folder, pattern)
    existing = _read_manifest(folder)
    if existing is not None and existing.shards == manifest.shards:
        return existing  # it may be of a download, which knows more
    manifest.write(folder)
    return manifest


def index_shard(tar: Path, endings: Endings = USUAL) -> ShardStats:
    """Write the index of one shard, then its counts and checksum, which are returned.

    Columns of a Parquet file of that name, and counts of a _stats.json, such as img2dataset writes, are kept.
    A tar that breaks off is indexed up to there, and `problem` says where.

    Raises:
        ValueError: a Parquet file of that name is about other samples.
    """
    if stats := indexed_stats(tar, endings):
        return stats
    checksum, samples = _checksum(tar), read_samples(tar, endings)
    table = _make_index(tar, samples, checksum)
    with writing(tar.with_suffix(".parquet")) as stream:
        pq.write_table(table, stream)
    outcomes = Counter(table["status"].to_pylist())
    counts = {
        "name": tar.stem,
        "count": len(table),
        "successes": outcomes[SUCCESS],
        "without_captions": count_without_captions(table),
        "status_dict": dict(sorted(outcomes.items())),
        "tar_sha256": checksum,
        "tar_bytes": tar.stat().st_size,
        "problem": samples.problem,
        "endings": {kind: list(given) for kind, given in endings._asdict().items()},
        "examples": find_examples(table.select(["url", "status", "error_message"]).to_pylist()),
    }
    former = _read_json(tar.with_name(stats_file(tar.stem)))
    if "status_dict" in former and "tar_sha256" not in former:
        former[FORMER_COUNTS] = former["status_dict"]
    stats = ShardStats.from_json(former | counts)
    stats.write(LocalFolder(tar.parent))
    return stats


def indexed_stats(tar: Path, endings: Endings = USUAL) -> ShardStats | None:
    """The counts of a shard whose index is there; None if it has to be made.

    A tar that was written since then is read, and what was made of another content, or of other members, is
    made again.
    """
    try:
        stats = ShardStats.read(LocalFolder(tar.parent), tar.stem)
        columns = pq.read_schema(tar.with_suffix(".parquet")).names
    except (OSError, ValueError, pa.ArrowException):  # what is broken is named where the index is made
        return None
    is_indexed = stats.tar_bytes == tar.stat().st_size and set(INDEX_SCHEMA.names) <= set(columns)
    is_read_so = stats.endings is None or Endings.of(stats.endings) == endings
    return stats if is_indexed and is_read_so and _is_unchanged(tar, stats) else None


def _is_unchanged(tar: Path, stats: ShardStats) -> bool:
    counts = tar.with_name(stats_file(tar.stem))
    if tar.stat().st_ctime_ns < counts.stat().st_ctime_ns:  # unlike mtime, nobody can set it
        return True
    if _checksum(tar) != stats.tar_sha256:
        return False
    with suppress(OSError):  # where it cannot be noted, it is read each time
        times = counts.stat()
        os.utime(counts, ns=(times.st_atime_ns, times.st_mtime_ns))
    return True


def _checksum(tar: Path) -> str:
    with tar.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _make_index(tar: Path, samples: TarSamples, checksum: str) -> pa.Table:
    def url(key: str) -> str:
        # The same tar in another folder holds the same samples, and no other tar does.
        return f"{checksum[:16]}#{key}"

    theirs = _read_foreign(tar.with_suffix(".parquet"))
    if theirs is None:
        rows = [{"url": url(key), "shard": tar.stem} | row for key, row in samples.rows.items()]
        return _with_more(pa.Table.from_pylist(rows, INDEX_SCHEMA.with_metadata(OURS)), rows)
    known = theirs.select([name for name in INDEX_SCHEMA.names if name in theirs.column_names]).to_pylist()
    _check_about(known, samples, tar)
    lost = BROKEN_TAR if samples.problem else NO_IMAGE
    repeated = {key for key, count in Counter(row.get("key") for row in known).items() if count > 1}
    rows = [
        {"url": url(row.get("key", "")), "shard": tar.stem}
        | _join(row, samples.rows.get(row.get("key", "")), lost)
        | ({"status": REPEATED_KEY} if row.get("key") in repeated else {})
        for row in known
    ]
    index = _with_more(_set_columns(theirs, rows), rows)
    return index.replace_schema_metadata({THEIRS: json.dumps(theirs.column_names)})


def _check_about(known: Sequence[Mapping[str, Any]], samples: TarSamples, tar: Path) -> None:
    """Refuse a Parquet file that is about other samples, such as those of a tar that was replaced."""
    index, remedy = tar.with_suffix(".parquet"), "move it elsewhere to index the tar"
    if not samples.rows.keys() <= {row.get("key") for row in known}:
        raise ValueError(f"{index} lacks samples of the tar of its name; {remedy}")
    for row in known:
        found = samples.rows.get(row.get("key", ""), {})
        if found.get("status") == SUCCESS and (name := _contradiction(row, found)):
            raise ValueError(
                f"{index} is about another content of the tar of its name: {name} of {row['key']} is "
                f"{row[name]!r} there and {found[name]!r} in the tar; {remedy}"
            )


def _contradiction(theirs: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The column in which a row and the sample of its key in the tar differ."""
    texts = {text.strip() for text in (found["caption"], *found["captions"]) if text}
    if texts and isinstance(text := theirs.get("caption"), str) and text and text.strip() not in texts:
        return "caption"
    sizes = [(side, theirs.get(side), found[side]) for side in ("width", "height")]
    return next((side for side, said, true in sizes if said and said != true), None)


def _with_more(table: pa.Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table with the values of .json members, in columns of their names that it does not have yet."""
    names = dict.fromkeys(name for row in rows for name in row.get("more", ()))
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, _column([row.get("more", {}).get(name) for row in rows]))
    return table


def _column(values: Sequence[Any]) -> pa.Array:
    """Values of JSON, as texts unless they are all numbers, all truth values or all texts."""
    if not any(isinstance(value, list | dict) for value in values):
        with suppress(pa.ArrowException, OverflowError):
            return pa.array(values)
    texts = [text if isinstance(text, str | None) else json.dumps(text) for text in values]
    return pa.array(texts, pa.string())


def _join(theirs: Mapping[str, Any], ours: Mapping[str, Any] | None, lost: str) -> dict[str, Any]:
    """What a row of someone else's index and the tar say of a sample."""
    kept = {name: value for name, value in theirs.items() if name not in RECOUNTED and value is not None}
    captions = [theirs["caption"]] if theirs.get("caption") else []
    if ours:
        return {**ours, **kept, "captions": ours["captions"] or captions}
    status, reason = theirs.get("status") or SUCCESS, theirs.get("error_message")
    outcome = lost if status in (SUCCESS, *MISSING) else outcome_of(status, reason)
    return kept | {"captions": captions, "status": outcome, "error_message": reason}


def _set_columns(table: pa.Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table with the index's columns, those that it has already replaced."""
    for name, kind in zip(INDEX_SCHEMA.names, INDEX_SCHEMA.types, strict=True):
        column = pa.array([row.get(name) for row in rows], kind)
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    return table


def _read_foreign(index: Path) -> pa.Table | None:
    """A Parquet file that someone else wrote beside a tar."""
    try:
        if not index.is_file() or (pq.read_schema(index).metadata or {}).items() >= OURS.items():
            return None
        table = pq.read_table(index)
        known = (table.schema.metadata or {}).get(THEIRS)
        return table.select(json.loads(known)) if known else table
    except pa.ArrowException as error:
        raise ValueError(f"{index} is not a Parquet file; move it elsewhere to index the tar") from error


def _read_manifest(folder: Path) -> ShardsManifest | None:
    try:
        return ShardsManifest.read(folder)
    except ValueError:
        return None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
