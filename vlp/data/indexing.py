"""Shards that others wrote, img2dataset's or webdataset's, made readable in place: an index beside each."""

import hashlib
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.data.shards import MANIFEST

MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""Key and extension of a member: the name up to the first dot, and what follows, as webdataset splits it."""
IMAGES = ("jpg", "jpeg", "png", "webp")
INDEX_COLUMNS = {
    "captions": pa.list_(pa.string()),
    "status": pa.string(),
    "image_offset": pa.int64(),
    "image_size": pa.int64(),
}


def index_shards(folder: Path) -> dict[str, Any]:
    """Write an index of every tar of a folder, and the manifest, last; returns the manifest.

    A shard whose index is there already is not read again, so work that was interrupted goes on.

    Raises:
        ValueError: there is no tar, or a Parquet file beside one is about other samples.
    """
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise ValueError(f"{folder} holds no tar file")
    shards = [index_shard(tar) for tar in tars]
    outcomes = sum((Counter(stats["status_dict"]) for stats in shards), Counter[str]())
    digest = hashlib.sha256(json.dumps([[stats["tar_sha256"] for stats in shards]]).encode()).hexdigest()
    manifest = {
        "identity": digest,
        "digest": digest,
        "num_urls": sum(stats["count"] for stats in shards),
        "num_samples": sum(stats["successes"] for stats in shards),
        "outcomes": dict(sorted(outcomes.items())),
        "shards": shards,
    }
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps(manifest, indent=1))
    temporary.replace(folder / MANIFEST)
    return manifest


def index_shard(tar: Path) -> dict[str, Any]:
    """Write the index of one shard; returns its counts and checksum.

    Columns of a Parquet file of that name, such as img2dataset writes, are kept.
    """
    index = tar.with_suffix(".parquet")
    if (stats := _read_stats(index)) and stats["tar_bytes"] == tar.stat().st_size:
        return stats
    samples = _read_samples(tar)
    table = _add_columns(index, samples) if index.is_file() else _new_table(samples)
    outcomes = Counter(table["status"].to_pylist())
    with tar.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    stats = {
        "name": tar.stem,
        "count": len(table),
        "successes": outcomes["success"],
        "status_dict": dict(sorted(outcomes.items())),
        "tar_sha256": checksum,
        "tar_bytes": tar.stat().st_size,
    }
    temporary = index.with_suffix(".parquet.tmp")
    pq.write_table(table.replace_schema_metadata({"vlp": json.dumps(stats)}), temporary)
    temporary.replace(index)
    return stats


def _read_stats(index: Path) -> dict[str, Any] | None:
    if not index.is_file():
        return None
    metadata = pq.read_schema(index).metadata or {}
    return json.loads(metadata[b"vlp"]) if b"vlp" in metadata else None


def _read_samples(tar: Path) -> dict[str, dict[str, Any]]:
    """Key -> index columns, of every sample up to the end of the tar, or to where it breaks."""
    samples: dict[str, dict[str, Any]] = {}
    broken = None
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                match = MEMBER.fullmatch(member.name)
                if member.isfile() and match:
                    sample = samples.setdefault(match[1], {"captions": []})
                    _add_member(sample, match[2].lower(), archive, member)
    except tarfile.ReadError as error:
        if not samples:
            raise ValueError(f"{tar} is no tar file: {error}") from error
        broken = samples[next(reversed(samples))]
    for sample in samples.values():
        missing = "no_image" if "image_offset" not in sample else "no_caption"
        sample["status"] = "success" if "image_offset" in sample and sample["captions"] else missing
    if broken:
        broken["status"] = "broken_tar"
    return samples


def _add_member(
    sample: dict[str, Any], extension: str, archive: tarfile.TarFile, member: tarfile.TarInfo
) -> None:
    if extension in IMAGES:
        sample |= {"image_offset": member.offset_data, "image_size": member.size}
    elif extension in ("txt", "json"):
        content = archive.extractfile(member)
        text = content.read().decode("utf-8", errors="replace") if content else ""
        found = [text.strip()] if extension == "txt" else _captions_of(text)
        # All captions are in the .json of our own shards, one of them in the .txt.
        if len(found) > len(sample["captions"]) and all(found):
            sample["captions"] = found


def _captions_of(text: str) -> list[Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return []
    if not isinstance(content, dict):
        return []
    captions = content.get("captions") or [content.get("caption")]
    return captions if all(isinstance(caption, str) for caption in captions) else []


def _new_table(samples: dict[str, dict[str, Any]]) -> pa.Table:
    rows = [{"key": key, **sample} for key, sample in samples.items()]
    return pa.Table.from_pylist(rows, pa.schema({"key": pa.string(), **INDEX_COLUMNS}))


def _add_columns(index: Path, samples: dict[str, dict[str, Any]]) -> pa.Table:
    """The Parquet file of a shard with the index's columns; its samples in the order of the file."""
    table = pq.read_table(index)
    keys = table["key"].to_pylist() if "key" in table.column_names else []
    if not samples.keys() <= set(keys):
        raise ValueError(f"{index} lacks samples of the tar of its name; move it elsewhere to index the tar")
    before = table["status"].to_pylist() if "status" in table.column_names else ["no_image"] * len(keys)
    lost = [{"status": "no_image" if status == "success" else status} for status in before]
    rows = [samples.get(key, other) for key, other in zip(keys, lost, strict=True)]
    for name, kind in INDEX_COLUMNS.items():
        column = pa.array([row.get(name) for row in rows], kind)
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    return table
