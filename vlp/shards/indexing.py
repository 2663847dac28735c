"""Shards that others wrote, img2dataset's or webdataset's, made readable in place: an index beside each."""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.shards.index_schema import INDEX_SCHEMA
from vlp.shards.manifest import MANIFEST, set_digest
from vlp.shards.outcome import SUCCESS
from vlp.shards.tar_samples import BROKEN_TAR, NO_IMAGE, TarSamples, read_samples

OURS = {b"made_by": b"vlp"}
"""Metadata of an index that nobody else wrote parts of."""
TEMPORARY = "[0-9a-f]" * 8 + ".tmp"
MISSING = (BROKEN_TAR, NO_IMAGE)
"""What becomes of a success that the tar does not hold."""
RECOUNTED = ("captions", "status", "image_offset", "image_size", "shard")
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


def index_shards(folder: Path) -> dict[str, Any]:
    """Write an index of every tar of a folder, and the manifest, last; returns the manifest.

    A shard whose index is there already is not read again, so work that was interrupted goes on.

    Raises:
        ValueError: there is no tar, or a Parquet file beside one is about other samples.
    """
    shards = [index_shard(tar) for tar in list_tars(folder)]
    for kind in ("*.parquet", "*_stats.json", MANIFEST):
        for leftover in folder.glob(f"{kind}.{TEMPORARY}"):  # of a process that was killed
            leftover.unlink()
    # `vlp download` keeps some URLs of each outcome with the counts, but not in the manifest.
    shards = [{key: value for key, value in stats.items() if key != "examples"} for stats in shards]
    existing = _read_json(folder / MANIFEST)
    if existing.get("shards") == shards:
        return existing
    outcomes = sum((Counter(stats["status_dict"]) for stats in shards), Counter[str]())
    digest = set_digest(shards)
    manifest = {
        "identity": digest,
        "digest": digest,
        "num_urls": sum(stats["count"] for stats in shards),
        "num_samples": sum(stats["successes"] for stats in shards),
        "outcomes": dict(sorted(outcomes.items())),
        "shards": shards,
    }
    _write_json(folder / MANIFEST, manifest)
    return manifest


def index_shard(tar: Path) -> dict[str, Any]:
    """Write the index of one shard, then its counts and checksum, which are returned.

    Columns of a Parquet file of that name, and counts of a _stats.json, such as img2dataset writes, are kept.
    A tar that breaks off is indexed up to there, and `problem` says where.

    Raises:
        ValueError: a Parquet file of that name is about other samples.
    """
    if stats := read_stats(tar):
        return stats
    with tar.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    samples = read_samples(tar)
    table = _make_index(tar, samples, checksum)
    _write_whole(tar.with_suffix(".parquet"), lambda file: pq.write_table(table, file))
    outcomes = Counter(table["status"].to_pylist())
    stats = {
        "name": tar.stem,
        "count": len(table),
        "successes": outcomes[SUCCESS],
        "status_dict": dict(sorted(outcomes.items())),
        "tar_sha256": checksum,
        "tar_bytes": tar.stat().st_size,
    }
    stats |= {"problem": samples.problem} if samples.problem else {}
    file = _stats_file(tar)
    before = {key: value for key, value in _read_json(file).items() if key != "problem"}
    _write_json(file, before | stats)
    return before | stats


def read_stats(tar: Path) -> dict[str, Any] | None:
    """The counts of a shard whose index is there; None if it has to be made."""
    index, stats = tar.with_suffix(".parquet"), _read_json(_stats_file(tar))
    if stats.get("tar_bytes") != tar.stat().st_size or not index.is_file():
        return None
    try:
        columns = pq.read_schema(index).names
    except pa.ArrowException:  # named where the index is made
        return None
    return stats if set(INDEX_SCHEMA.names) <= set(columns) else None


def _make_index(tar: Path, samples: TarSamples, checksum: str) -> pa.Table:
    def url(key: str) -> str:
        # The same tar in another folder holds the same samples, and no other tar does.
        return f"{checksum[:16]}#{key}"

    theirs = _read_foreign(tar.with_suffix(".parquet"))
    if theirs is None:
        rows = [{"url": url(key), "shard": tar.stem} | row for key, row in samples.rows.items()]
        return pa.Table.from_pylist(rows, INDEX_SCHEMA.with_metadata(OURS))
    known = theirs.select([name for name in INDEX_SCHEMA.names if name in theirs.column_names]).to_pylist()
    if not samples.rows.keys() <= {row.get("key") for row in known}:
        raise ValueError(
            f"{tar.with_suffix('.parquet')} lacks samples of the tar of its name; "
            "move it elsewhere to index the tar"
        )
    lost = BROKEN_TAR if samples.problem else NO_IMAGE
    rows = [
        {"url": url(row.get("key", "")), "shard": tar.stem}
        | _join(row, samples.rows.get(row.get("key", "")), lost)
        for row in known
    ]
    return _set_columns(theirs, rows)


def _join(theirs: Mapping[str, Any], ours: Mapping[str, Any] | None, lost: str) -> dict[str, Any]:
    """What a row of someone else's index and the tar say of a sample."""
    kept = {name: value for name, value in theirs.items() if name not in RECOUNTED and value is not None}
    if ours:
        return {**ours, **kept}
    status = theirs.get("status") or SUCCESS
    captions = [theirs.get("caption") or ""]
    return kept | {"captions": captions, "status": lost if status in (SUCCESS, *MISSING) else status}


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
        return pq.read_table(index)
    except pa.ArrowException as error:
        raise ValueError(f"{index} is no Parquet file; move it elsewhere to index the tar") from error


def _stats_file(tar: Path) -> Path:
    return tar.with_name(f"{tar.stem}_stats.json")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(file: Path, content: Any) -> None:
    _write_whole(file, lambda temporary: temporary.write_text(json.dumps(content, indent=1)))


def _write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
