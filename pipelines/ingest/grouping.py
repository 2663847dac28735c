"""The rows of a URL list to one row per URL: by two sorts on disk, as lists of a billion rows are usual."""

from collections.abc import Iterable, Iterator

import duckdb
import numpy as np
import pyarrow as pa

from pipelines.ingest.scratch import scratch_database

SCHEMA = pa.schema({"url": pa.string(), "captions": pa.list_(pa.string()), "digest": pa.string()})
COLUMNS = "(number BIGINT, url VARCHAR, captions VARCHAR[], digest VARCHAR)"
ROWS_AT_A_TIME = 100_000


def group_by_url(tables: Iterable[pa.Table], *, max_bytes: int) -> Iterator[pa.Table]:
    """One row per distinct URL, in order of first appearance, with all its captions and its first digest.

    A URL whose captions are all empty or missing has one that is empty.

    Args:
        tables: of `SCHEMA`, a part of the list each.
        max_bytes: memory; what needs more lies on disk meanwhile.

    Raises:
        UserError: the memory or the disk has no room.
    """
    with scratch_database(max_bytes=max_bytes) as database:
        _insert(database, "rows", _numbered(tables))
        by_url = _read(database, "SELECT number, url, captions, digest FROM rows ORDER BY url, number")
        _insert(database.cursor(), "urls", _merge_equal(by_url))
        for table in _read(database, "SELECT url, captions, digest FROM urls ORDER BY number"):
            yield table.cast(SCHEMA)


def _numbered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    num_rows = 0
    for table in tables:
        yield table.add_column(0, "number", pa.array(np.arange(num_rows, num_rows + len(table))))
        num_rows += len(table)


def _insert(database: duckdb.DuckDBPyConnection, name: str, tables: Iterable[pa.Table]) -> None:
    database.execute(f"CREATE TABLE {name} {COLUMNS}")
    for table in tables:
        database.from_arrow(table).insert_into(name)


def _read(database: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    for batch in database.sql(query).to_arrow_reader(ROWS_AT_A_TIME):
        yield pa.Table.from_batches([batch])


def _merge_equal(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join neighbours with the same URL, also across tables; the number is that of the first."""
    rest: list[pa.Table] = []
    for part in tables:
        table = pa.concat_tables([*rest, part]).combine_chunks()
        urls = table["url"].combine_chunks().dictionary_encode().indices.to_numpy()
        starts = np.flatnonzero(np.diff(urls, prepend=-1))
        yield _join_captions(table.slice(0, starts[-1]), starts[:-1])
        rest = [table.slice(starts[-1])]  # more of this URL may follow
    for table in rest:
        yield _join_captions(table.combine_chunks(), np.zeros(1, np.int64))


def _join_captions(table: pa.Table, starts: np.ndarray) -> pa.Table:
    lists = table["captions"].combine_chunks()
    bounds = lists.offsets.to_numpy()[np.append(starts, len(table))]
    rows = table.take(starts)
    captions = _without_empty(pa.ListArray.from_arrays(bounds, lists.values))
    return rows.set_column(table.schema.get_field_index("captions"), "captions", captions)


def _without_empty(lists: pa.ListArray) -> pa.ListArray:
    """Lists of texts without those that are missing or empty; one that is empty where no other is left."""
    rows, texts = lists.value_parent_indices().to_numpy(), lists.flatten().fill_null("")
    kept = np.flatnonzero(texts.to_numpy(zero_copy_only=False) != "")
    without = np.setdiff1d(np.arange(len(lists)), rows[kept])
    texts = pa.concat_arrays([texts.take(pa.array(kept)), pa.repeat("", len(without))])
    rows = np.concatenate([rows[kept], without])
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows, minlength=len(lists)))
    return pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), texts.take(pa.array(order)))
