"""A URL list, in any of the usual formats, to rows of one form, part by part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.errors import ConfigError, UserError, nearest
from pipelines.ingest.delimited import read_csv, read_tsv
from pipelines.ingest.grouping import SCHEMA
from pipelines.ingest.hugging_face import choose_split, find_splits
from pipelines.ingest.json_lines import read_json_lines
from pipelines.ingest.tables import column_names, read_columns
from vlp.core.messages import one_line

InputFormat = Literal["auto", "csv", "tsv", "jsonl", "parquet", "arrow", "images"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
METADATA_SUFFIXES = {".jsonl", ".csv", ".parquet"}
EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a URL list hold what."""

    url: str
    caption: str
    digest: str | None = None
    """Column of hex digests of the images' bytes, if there is one."""

    def names(self) -> list[str]:
        """The columns that are read."""
        names = [self.url, self.caption, *([self.digest] if self.digest else [])]
        return list(dict.fromkeys(names))


def read_url_list(
    files: Sequence[Path], columns: Columns, *, input_format: InputFormat
) -> Iterator[pa.Table]:
    """The rows of a list, part by part: `url`, its `captions` (a list), its `digest`.

    A caption column may hold text or lists of texts. A row without URL is left out.

    Raises:
        ConfigError: a file that cannot be read, an unknown format, a missing column, or no URL at all.
    """
    num_rows = 0
    for file in files:
        for table in _read(file, input_format, columns):
            num_rows += len(table)
            yield table
    if not num_rows:
        raise UserError(f"{files[0]} lists no URL")


def list_files(path: Path, input_format: InputFormat, *, split: str | None = None) -> list[Path]:
    """The files of a URL list, in the order they are read: of a folder by name, or of a split of a data set.

    Raises:
        ConfigError: no such file or split, or a folder without files of that format.
    """
    if input_format == "images":
        return list_images(path)
    if path.is_dir() and (splits := find_splits(path)):
        return choose_split(path, splits, split)
    if split is not None:
        raise ConfigError(f"split: {path} is not a folder of Hugging Face datasets; leave it out")
    if path.is_file():
        return [path]
    known = [s for s, kind in EXTENSIONS.items() if input_format in ("auto", kind)]
    files = sorted(p for p in path.glob("*") if p.suffix in known) if path.is_dir() else []
    if not files:
        raise ConfigError(f"url_list: no such file, nor a folder with {', '.join(known)} files: {path}")
    return files


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder and below, and the files of their captions, in order of their paths.

    Captions are in a .txt file beside each image, or in a metadata file of `datasets` in a folder above it.
    """
    images = [file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ConfigError(f"url_list: no folder with images: {folder}")
    captions = [file.with_suffix(".txt") for file in images]
    metadata = [file for file in folder.rglob("metadata.*") if file.suffix in METADATA_SUFFIXES]
    return sorted({*images, *(file for file in captions if file.is_file()), *metadata})


def _read(file: Path, input_format: InputFormat, columns: Columns) -> Iterator[pa.Table]:
    kind = EXTENSIONS.get(file.suffix) if input_format == "auto" else input_format
    if kind is None:
        raise UserError(f"{file}: unknown format {file.suffix!r}{nearest(file.suffix, EXTENSIONS)}")
    try:
        for table in _parse(file, kind, columns):
            for column in columns.names():
                if column not in table.column_names:
                    raise UserError(f"{file} has no column {column!r}{nearest(column, table.column_names)}")
                if table.column_names.count(column) > 1:
                    raise UserError(f"{file} has several columns {column!r}; rename all but one")
            yield _uniform(table, columns)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{file} is not a valid {kind} file: {one_line(error)}") from error


def _parse(file: Path, kind: str, columns: Columns) -> Iterator[pa.Table]:
    """The columns asked for, part by part; an empty table of those that there are if one is missing."""
    names = columns.names()
    if kind == "jsonl":
        yield from read_json_lines(file, names)
    elif kind in ("parquet", "arrow"):
        known = column_names(file)
        yield from read_columns(file, names) if set(names) <= set(known) else [_empty(known)]
    else:
        yield from (read_tsv if kind == "tsv" else read_csv)(file, names)


def _empty(names: Sequence[str]) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(0)] * len(names), list(names))


def _uniform(table: pa.Table, columns: Columns) -> pa.Table:
    url, caption = (table[column] for column in (columns.url, columns.caption))
    digest = table[columns.digest] if columns.digest else pa.nulls(len(table))
    captions = caption_lists(caption, columns.caption)
    return pa.table([url, captions, digest], SCHEMA.names).cast(SCHEMA).filter(pc.field("url") != "")


def caption_lists(column: pa.ChunkedArray, name: str) -> pa.ListArray:
    """A column of texts, or of lists of them, as lists.

    Raises:
        ValueError: it holds something else, such as objects.
    """
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    kind = column.type.value_type if is_list else column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        fields = (
            f" with the fields {', '.join(field.name for field in kind)}" if pa.types.is_struct(kind) else ""
        )
        what = "objects" if fields else f"values of type {kind}"
        raise ValueError(f"column {name!r} holds {what}{fields} in place of texts; write a column of texts")
    if is_list:
        return column.cast(pa.list_(pa.string())).combine_chunks()
    texts = column.cast(pa.string()).combine_chunks()
    return pa.ListArray.from_arrays(np.arange(len(texts) + 1, dtype=np.int32), texts)
