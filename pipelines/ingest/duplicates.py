"""Images that are in a set twice: of those with equal bytes, or that look alike, the first one stays.

What is dropped is a function of the order of keys alone. So shards may be made in any order, by any number
of workers, and shards that are added later change nothing about the earlier ones.
"""

import itertools
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ingest.scratch import scratch_database
from vlp.shards.contents import ShardStats
from vlp.shards.index_schema import more_columns
from vlp.shards.outcome import DOWNLOADED, DUPLICATE, NEAR_DUPLICATE, SUCCESS, StoredImage
from vlp.shards.storage.folder import Folder, LocalFile
from vlp.shards.writing import Sample, write_shard

Drops = dict[str, tuple[str, str]]
"""Key of an image to the outcome and message that it gets."""


IMAGES = """
    CREATE TABLE images (
        number BIGINT, shard VARCHAR, key VARCHAR, digest VARCHAR, hash UBIGINT, stored BOOLEAN
    )
"""
REPEATED = """
    SELECT shard, key, first_key
    FROM images JOIN (
        SELECT digest, min(number) AS first, arg_min(key, number) AS first_key
        FROM images GROUP BY digest HAVING count(*) > 1
    ) USING (digest)
    WHERE number > first AND stored
"""
DISTINCT = """
    SELECT shard, key, hash, stored
    FROM images SEMI JOIN (SELECT min(number) AS number FROM images GROUP BY digest) USING (number)
    ORDER BY number
"""


def find_duplicates(
    output: Folder, names: Sequence[str], *, near: int | None, max_bytes: int
) -> dict[str, Drops]:
    """What is to be dropped of each shard that still holds duplicates.

    Args:
        near: bits of the perceptual hashes in which images that look alike may differ; None leaves them. To
            compare hashes takes some 500 bytes per image beside `max_bytes`.
    """
    drops: dict[str, Drops] = defaultdict(dict)
    with scratch_database(max_bytes=max_bytes) as database:
        _insert(database, output, names)
        for shard, key, first in _rows(database.sql(REPEATED)):
            drops[shard][key] = DUPLICATE, f"as {first}"
        if near is not None:
            for shard, key, first in _look_alikes(database.sql(DISTINCT).to_arrow_table(), near):
                drops[shard][key] = NEAR_DUPLICATE, f"looks like {first}"
    return dict(drops)


def _look_alikes(images: pa.Table, near: int) -> Iterator[tuple[str, str, str]]:
    """Shard and key of every stored image that looks like an earlier one, and the key of that one."""
    first = first_alike(images["hash"].to_numpy(), near)
    is_alike = first != np.arange(len(first))
    for i in np.flatnonzero(is_alike & images["stored"].to_numpy()).tolist():
        yield str(images["shard"][i]), str(images["key"][i]), str(images["key"][first[i]])


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


def drop(output: Folder, name: str, drops: Drops) -> ShardStats:
    """Write a shard again without some of its images; returns its counts.

    May be cut at any point and repeated: images are found by their names in the tar, which is replaced first.
    """
    stats = ShardStats.read(output, name)
    index = output.table(f"{name}.parquet")
    more = more_columns(index.schema)
    with output.fetched(f"{name}.tar") as tar:
        samples = _samples(tar, index.to_pylist(), drops, more.names)
        return write_shard(output, name, samples, more=more, retried=stats.retried)


def _samples(
    tar: LocalFile, rows: list[dict[str, Any]], drops: Drops, more: Sequence[str]
) -> Iterator[Sample]:
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
        yield Sample(row["key"], row["url"], row["captions"], image, {name: row[name] for name in more})


def _insert(database: duckdb.DuckDBPyConnection, output: Folder, names: Sequence[str]) -> None:
    """All images of a set, in the order of their keys."""
    database.execute(IMAGES)
    num_images = 0
    for name in names:
        index = output.table(f"{name}.parquet", ["key", "sha256", "dhash", "status"])
        index = index.filter(pc.field("status").isin(sorted(DOWNLOADED)))
        columns = {
            "number": np.arange(num_images, num_images + len(index)),
            "shard": pa.array([name] * len(index), pa.string()),
            "key": index["key"],
            "digest": index["sha256"],
            "hash": index["dhash"].fill_null(0),
            "stored": index["status"].to_numpy() == SUCCESS,
        }
        database.from_arrow(pa.table(columns)).insert_into("images")
        num_images += len(index)


def _rows(relation: duckdb.DuckDBPyRelation) -> Iterator[tuple[Any, ...]]:
    for batch in relation.to_arrow_reader(10_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
