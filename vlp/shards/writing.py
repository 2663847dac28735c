"""One shard: its tar, its index and its counts, each written whole or not at all."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.shards.contents import ShardStats
from vlp.shards.index_schema import INDEX_SCHEMA, NO_COLUMNS, count_without_captions
from vlp.shards.outcome import RESIZE_FAILURES, SUCCESS, StoredImage
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.tar import TarWriter

NUM_EXAMPLES = 3


class Sample(NamedTuple):
    """One URL of a shard and what became of it."""

    key: str
    url: str
    captions: list[str]
    """None of them is empty."""
    image: StoredImage
    more: Mapping[str, Any] = MappingProxyType({})
    """What the source says of it in columns of its own."""


class Spool:
    """The samples of a shard as they come, on disk; then in the order of their keys.

    The file has no name, so nothing of it stays behind when its process is killed.
    """

    def __init__(self, folder: Folder) -> None:
        self._file = folder.scratch()
        self._samples: list[tuple[Sample, int, int]] = []

    def add(self, sample: Sample) -> None:
        """Put one sample away; a failed write is an OSError."""
        encoded = sample.image.encoded
        offset = self._file.tell()
        self._file.write(encoded or b"")
        size = -1 if encoded is None else len(encoded)
        self._samples.append((sample._replace(image=sample.image._replace(encoded=None)), offset, size))

    def __iter__(self) -> Iterator[Sample]:
        self._file.flush()
        for sample, offset, size in sorted(self._samples, key=lambda entry: entry[0].key):
            encoded = None if size < 0 else os.pread(self._file.fileno(), size, offset)
            yield sample._replace(image=sample.image._replace(encoded=encoded))

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()


def write_shard(
    folder: Path | Folder,
    name: str,
    samples: Iterable[Sample],
    *,
    more: pa.Schema = NO_COLUMNS,
    retried: Mapping[str, int] | None = None,
) -> ShardStats:
    """Write `name`.tar, .parquet and _stats.json, in this order; the last one commits the shard.

    The bytes depend on the samples alone, which are in the order of their keys. Returns the counts.

    Args:
        more: names and types of the columns that the samples have of their own.
        retried: counts the outcomes that the URLs had in earlier shards.
    """
    folder = open_folder(folder)
    with folder.writing(f"{name}.tar") as tar:
        rows = _write_tar(tar, name, samples)
        tar.seek(0)
        contents = {"tar_sha256": hashlib.file_digest(tar, "sha256").hexdigest(), "tar_bytes": tar.tell()}
    with folder.writing(f"{name}.parquet") as index:
        table = pa.Table.from_pylist(rows, pa.schema([*INDEX_SCHEMA, *more]))
        pq.write_table(table, index)
    contents["without_captions"] = count_without_captions(table)
    stats = ShardStats(name=name, retried=dict(sorted((retried or {}).items())), **_count(rows), **contents)
    stats.write(folder)
    return stats


def _count(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The counts of a shard, without those of its tar."""
    outcomes = Counter(row["status"] for row in rows)
    failed_to_resize = sum(outcomes[outcome] for outcome in RESIZE_FAILURES)
    return {
        "count": len(rows),
        "successes": outcomes[SUCCESS],
        "failed_to_download": len(rows) - outcomes[SUCCESS] - failed_to_resize,
        "failed_to_resize": failed_to_resize,
        "status_dict": dict(sorted(outcomes.items())),
        "examples": find_examples(rows),
    }


def find_examples(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The first URLs of every outcome but success."""
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found = examples.setdefault(row["status"], [])
        if row["status"] != SUCCESS and len(found) < NUM_EXAMPLES:
            found.append({"url": row["url"], "error": row.get("error_message")})
    examples.pop(SUCCESS, None)
    return dict(sorted(examples.items()))


def _write_tar(stream: BinaryIO, shard: str, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    rows = []
    tar = TarWriter(stream)
    for sample in samples:
        row = _describe(sample) | {"shard": shard}
        place = {}
        if sample.image.encoded is not None:
            place = _add_sample(tar, sample.key, sample.image.encoded, row)
        rows.append(row | place | {"dhash": sample.image.dhash})
    tar.close()
    return rows


def _add_sample(tar: TarWriter, key: str, encoded: bytes, row: dict[str, Any]) -> dict[str, int]:
    """Add the members of one sample; where its image lies in the tar."""
    offset = tar.add(f"{key}.jpg", encoded)
    if row["caption"] is not None:
        tar.add(f"{key}.txt", row["caption"].encode())
    tar.add(f"{key}.json", json.dumps(row, ensure_ascii=False, default=str).encode())
    return {"image_offset": offset, "image_size": len(encoded)}


def _describe(sample: Sample) -> dict[str, Any]:
    image = sample.image
    return {
        "key": sample.key,
        "url": sample.url,
        "caption": next(iter(sample.captions), None),
        "captions": sample.captions,
        "status": image.outcome,
        "error_message": image.error and image.error.encode("utf-8", "replace").decode(),
        "width": image.size[0],
        "height": image.size[1],
        "original_width": image.original_size[0],
        "original_height": image.original_size[1],
        "sha256": image.sha256,
        **sample.more,
    }
