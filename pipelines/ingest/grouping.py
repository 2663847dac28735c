"""The rows of a URL list to one row per URL: by two sorts on disk, as lists of a billion rows are usual."""

from collections.abc import Iterable, Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from pipelines.ingest.scratch import scratch_database

SCHEMA = pa.schema({"url": pa.string(), "captions": pa.list_(pa.string()), "digest": pa.string()})
INTEGER = r"-?(0|[1-9][0-9]{0,17})"
NUMBER = r"-?(0|[1-9][0-9]*|[0-9]?\.[0-9]+|[1-9][0-9]*\.[0-9]*)([eE][-+]?[0-9]+)?|[nN]a[nN]|-?inf"
TYPES = {"BIGINT": INTEGER, "DOUBLE": NUMBER, "BOOLEAN": "true|false|True|False"}
"""Types that a column of texts gets where all of them match: not `007`, which is no number."""
ROWS_AT_A_TIME = 100_000


def group_by_url(
    tables: Iterable[pa.Table], *, max_bytes: int, guess_types: bool = False
) -> Iterator[pa.Table]:
    """One row per distinct URL, in order of first appearance, with all its captions.

    Its digest, and what else is kept in `more`, are those of its first row. Captions that are empty or
    missing are left out.

    Args:
        tables: of `SCHEMA`, a part of the list each; with a struct `more` or without.
        max_bytes: memory; what needs more lies on disk meanwhile.
        guess_types: whether texts in `more` become numbers where all of a column are.

    Raises:
        UserError: the memory or the disk has no room.
    """
    with scratch_database(max_bytes=max_bytes) as database:
        more = _insert(database, "rows", _numbered(tables))
        kept = ["url", "captions", "digest"]
        if more:
            kept.append(f"{_typed(database, more)} AS more" if guess_types else "more")
        by_url = _read(database, f"SELECT number, {', '.join(kept)} FROM rows ORDER BY url, number")
        _insert(database.cursor(), "urls", _merge_equal(by_url))
        for table in _read(database, "SELECT * EXCLUDE number FROM urls ORDER BY number"):
            yield table.cast(pa.schema([*SCHEMA, *list(table.schema)[len(SCHEMA) :]]))


def _numbered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    num_rows = 0
    for table in tables:
        yield table.add_column(0, "number", pa.array(np.arange(num_rows, num_rows + len(table))))
        num_rows += len(table)


def _insert(database: duckdb.DuckDBPyConnection, name: str, tables: Iterable[pa.Table]) -> list[str]:
    """Fill a new table; the names of what is in its `more`."""
    tables = iter(tables)
    first = next(tables, SCHEMA.empty_table().add_column(0, "number", pa.array([], pa.int64())))
    database.from_arrow(first).create(name)
    for table in tables:
        database.from_arrow(table).insert_into(name)
    return [field.name for field in first.schema.field("more").type] if "more" in first.schema.names else []


def _typed(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> str:
    """A struct of the texts in `more` as what all of their column are."""
    parts = []
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        text = f"nullif(more.{quoted}, '')"
        matches = ", ".join(
            f"bool_and(regexp_full_match({text}, '{pattern}')) AND count({text}) > 0"
            for pattern in TYPES.values()
        )
        found = database.sql(f"SELECT {matches} FROM rows").fetchall()[0]
        kind = next((kind for kind, is_one in zip(TYPES, found, strict=True) if is_one), None)
        parts.append(f"{quoted} := " + (f"CAST({text} AS {kind})" if kind else f"more.{quoted}"))
    return f"struct_pack({', '.join(parts)})"


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
    """Lists of texts without those that are missing or empty."""
    rows, texts = lists.value_parent_indices().to_numpy(), lists.flatten().fill_null("")
    kept = np.flatnonzero(texts.to_numpy(zero_copy_only=False) != "")
    ends = np.cumsum(np.bincount(rows[kept], minlength=len(lists)))
    return pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), texts.take(pa.array(kept)))
