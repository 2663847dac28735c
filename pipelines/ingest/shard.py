"""One shard: its tar, its index and its counts, each written whole or not at all."""

import hashlib
import io
import json
import os
import tarfile
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ingest.outcome import SUCCESS, StoredImage

WRITER = uuid.uuid4().hex[:8]
INDEX_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "url": pa.string(),
        "caption": pa.string(),
        "captions": pa.list_(pa.string()),
        "status": pa.string(),
        "error_message": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "original_width": pa.int32(),
        "original_height": pa.int32(),
        "sha256": pa.string(),
        "shard": pa.string(),
        "image_offset": pa.int64(),
        "image_size": pa.int64(),
    }
)


class Sample(NamedTuple):
    """One URL of a shard and what became of it."""

    key: str
    url: str
    captions: list[str]
    image: StoredImage


def write_shard(folder: Path, name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Write `name`.tar, .parquet and _stats.json, in this order; the last one commits the shard.

    The bytes of the tar depend on the samples alone. Returns the counts.
    """
    rows = _write_tar(folder / f"{name}.tar", name, samples)
    index = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), _temporary(index))
    _commit(index)
    tar = folder / f"{name}.tar"
    with tar.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    outcomes = Counter(sample.image.outcome for sample in samples)
    stats = {
        "name": name,
        "count": len(samples),
        "successes": outcomes[SUCCESS],
        "status_dict": dict(sorted(outcomes.items())),
        "tar_sha256": checksum,
        "tar_bytes": tar.stat().st_size,
    }
    write_json(folder / f"{name}_stats.json", stats)
    return stats


def remove_temporary(folder: Path) -> None:
    """Delete what writers that were killed left behind."""
    for file in folder.glob("*.tmp"):
        file.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    _temporary(path).write_text(json.dumps(content, indent=1))
    _commit(path)


def _write_tar(path: Path, shard: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    rows = []
    with _temporary(path).open("wb") as stream:
        tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        with tar:
            for sample in samples:
                row = _describe(sample) | {"shard": shard}
                if sample.image.encoded is not None:
                    row |= _add_sample(tar, stream, sample, row)
                rows.append(row)
    _commit(path)
    return rows


def _add_sample(
    tar: tarfile.TarFile, stream: BinaryIO, sample: Sample, row: dict[str, Any]
) -> dict[str, int]:
    """Add the members of one sample; where its image lies in the tar."""
    encoded = sample.image.encoded or b""
    _add(tar, f"{sample.key}.jpg", encoded)
    padding = -len(encoded) % tarfile.BLOCKSIZE
    offset = stream.tell() - padding - len(encoded)
    _add(tar, f"{sample.key}.txt", row["caption"].encode())
    _add(tar, f"{sample.key}.json", json.dumps(row, ensure_ascii=False).encode())
    return {"image_offset": offset, "image_size": len(encoded)}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # time, owner and mode keep their defaults: equal bytes on every run
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _describe(sample: Sample) -> dict[str, Any]:
    image = sample.image
    return {
        "key": sample.key,
        "url": sample.url,
        "caption": sample.captions[0],
        "captions": sample.captions,
        "status": image.outcome,
        "error_message": image.error,
        "width": image.size[0],
        "height": image.size[1],
        "original_width": image.original_size[0],
        "original_height": image.original_size[1],
        "sha256": image.sha256,
    }


def _temporary(path: Path) -> Path:
    # A killed driver's actors live some seconds longer: no two processes may write one file.
    return path.with_name(f"{path.name}.{WRITER}.tmp")


def _commit(path: Path) -> None:
    """Make the temporary file durable, then give it its name."""
    temporary = _temporary(path)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)
