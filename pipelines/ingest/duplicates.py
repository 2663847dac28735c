"""Images that are in a set twice: of those with equal bytes, or that look alike, the first one stays.

What is dropped is a function of the order of keys alone. So shards may be made in any order, by any number
of workers, and shards that are added later change nothing about the earlier ones.
"""

import itertools
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ingest.outcome import DOWNLOADED, DUPLICATE, NEAR_DUPLICATE, SUCCESS, StoredImage
from pipelines.ingest.shard import Sample, read_stats, write_shard
from vlp.data.folder import Folder, LocalFile

Drops = dict[str, tuple[str, str]]
"""Key of an image to the outcome and message that it gets."""


class _Images(NamedTuple):
    """What tells the images of a set apart: 16 bytes each, or 24."""

    shards: np.ndarray
    keys: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray


def find_duplicates(output: Folder, names: Sequence[str], *, near: int | None) -> dict[str, Drops]:
    """What is to be dropped of each shard that still holds duplicates.

    Args:
        near: bits of the perceptual hashes in which images that look alike may differ; None leaves them.
    """
    images, stored = _read(output, names)
    first = first_equal(images.digests)
    outcomes = np.where(first < np.arange(len(first)), DUPLICATE, SUCCESS).astype("U16")
    if near is not None:
        distinct = np.flatnonzero(outcomes == SUCCESS)
        first[distinct] = distinct[first_alike(images.hashes[distinct], near)]
        outcomes[distinct[first[distinct] != distinct]] = NEAR_DUPLICATE
    drops: dict[str, Drops] = defaultdict(dict)
    for i in np.flatnonzero((outcomes != SUCCESS) & stored):
        outcome = str(outcomes[i])
        message = f"{'as' if outcome == DUPLICATE else 'looks like'} {images.keys[first[i]]}"
        drops[names[int(images.shards[i])]][str(images.keys[i])] = (outcome, message)
    return dict(drops)


def first_equal(digests: np.ndarray) -> np.ndarray:
    """Index of the first equal element: (N,) -> (N,)."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse.ravel()]


def first_alike(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Index of the first element that was kept and differs in at most `distance` bits: (N,) uint64 -> (N,).

    Of `distance + 1` parts of two such hashes at least one is equal: only those that share one are compared.
    """
    bounds = np.linspace(0, 64, distance + 2).astype(int).tolist()
    parts = [(low, (1 << high - low) - 1) for low, high in itertools.pairwise(bounds)]
    kept: list[dict[int, list[int]]] = [defaultdict(list) for _ in parts]
    values = [int(value) for value in hashes]
    first = np.arange(len(values))
    for i, value in enumerate(values):
        shared = [kept[part][value >> low & mask] for part, (low, mask) in enumerate(parts)]
        alike = [j for group in shared for j in group if (value ^ values[j]).bit_count() <= distance]
        if alike:
            first[i] = min(alike)
        else:
            for group in shared:
                group.append(i)
    return first


def drop(output: Folder, name: str, drops: Drops) -> dict[str, Any]:
    """Write a shard again without some of its images; returns its counts.

    May be cut at any point and repeated: images are found by their names in the tar, which is replaced first.
    """
    stats = read_stats(output, name)
    rows = output.table(f"{name}.parquet").to_pylist()
    with output.fetched(f"{name}.tar") as tar:
        return write_shard(output, name, _samples(tar, rows, drops), retried=stats["retried"])


def _samples(tar: LocalFile, rows: list[dict[str, Any]], drops: Drops) -> Iterator[Sample]:
    with tarfile.open(fileobj=tar) as members:
        places = {m.name: (m.size, m.offset_data) for m in members if m.name.endswith(".jpg")}
    for row in rows:
        outcome, error = drops.get(row["key"], (row["status"], row["error_message"]))
        encoded = None
        if outcome == SUCCESS:
            encoded = os.pread(tar.fileno(), *places[f"{row['key']}.jpg"])
        size = (row["width"], row["height"]) if encoded is not None else (0, 0)
        original_size = (row["original_width"], row["original_height"])
        image = StoredImage(outcome, error, encoded, size, original_size, row["sha256"], row["dhash"])
        yield Sample(row["key"], row["url"], row["captions"], image)


def _read(output: Folder, names: Sequence[str]) -> tuple[_Images, np.ndarray]:
    """All images of a set, and whether each is stored."""
    columns = ["key", "sha256", "dhash", "status"]
    parts = []
    for name in names:
        index = output.table(f"{name}.parquet", columns)
        parts.append(index.filter(pc.field("status").isin(sorted(DOWNLOADED))))
    table = pa.concat_tables(parts)
    digests = bytes.fromhex("".join(digest[:32] for digest in table["sha256"].to_pylist()))
    images = _Images(
        shards=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        keys=table["key"].to_numpy().astype("U"),
        digests=np.frombuffer(digests, [("high", "u8"), ("low", "u8")]),
        hashes=table["dhash"].fill_null(0).to_numpy(),
    )
    return images, table["status"].to_numpy() == SUCCESS
