"""The rows of a URL list to one row per URL: in bounded memory, as lists of a billion rows are usual."""

from collections.abc import Iterable, Iterator

import duckdb
import numpy as np
import pyarrow as pa

from pipelines.ingest.scratch import scratch_database

SCHEMA = pa.schema({"url": pa.string(), "captions": pa.list_(pa.string()), "digest": pa.string()})
ROWS_AT_A_TIME = 100_000
LISTED = "CREATE TABLE listed (number BIGINT, url VARCHAR, captions VARCHAR[], digest VARCHAR)"
BY_FIRST_ROW = """
    SELECT first, url, captions, digest
    FROM listed JOIN (SELECT url, min(number) AS first FROM listed GROUP BY url) USING (url)
    ORDER BY first, number
"""


def group_by_url(tables: Iterable[pa.Table], *, max_bytes: int) -> Iterator[pa.Table]:
    """One row per distinct URL, in order of first appearance, with all its captions and its first digest.

    Args:
        tables: of `SCHEMA`, a part of the list each.
        max_bytes: memory; what needs more lies in a temporary folder meanwhile (the environment's TMPDIR).

    Raises:
        ConfigError: the temporary folder has no room.
    """
    with scratch_database(max_bytes=max_bytes) as database:
        database.execute(LISTED)
        _insert(database, tables)
        reader = database.sql(BY_FIRST_ROW).to_arrow_reader(ROWS_AT_A_TIME)
        yield from _merge_equal(pa.Table.from_batches([batch]) for batch in reader)


def _insert(database: duckdb.DuckDBPyConnection, tables: Iterable[pa.Table]) -> None:
    num_rows = 0
    for table in tables:
        numbers = pa.array(np.arange(num_rows, num_rows + len(table)))
        database.from_arrow(table.add_column(0, "number", numbers)).insert_into("listed")
        num_rows += len(table)


def _merge_equal(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join neighbours with the same `first`, also across tables."""
    rest: pa.Table | None = None
    for part in tables:
        table = part if rest is None else pa.concat_tables([rest, part])
        first = table["first"].to_numpy()
        complete = int(np.searchsorted(first, first[-1]))
        if complete:
            yield _join_captions(table.slice(0, complete))
        rest = table.slice(complete)
    if rest is not None:
        yield _join_captions(rest)


def _join_captions(table: pa.Table) -> pa.Table:
    table = table.combine_chunks()
    starts = np.flatnonzero(np.diff(table["first"].to_numpy(), prepend=-1))
    lists = table["captions"].combine_chunks()
    bounds = lists.offsets.to_numpy()[np.append(starts, len(table))]
    captions = pa.ListArray.from_arrays(bounds, lists.values)
    rows = table.select(["url", "digest"]).take(starts)
    return pa.table({"url": rows["url"], "captions": captions, "digest": rows["digest"]}).cast(SCHEMA)
