"""A URL list, in any of the usual formats, to the plan of its shards."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipelines.config_errors import ConfigError, nearest
from pipelines.ingest.hugging_face import choose_split, find_splits
from pipelines.ingest.json_lines import read_json_lines
from pipelines.ingest.tables import column_names, read_columns

InputFormat = Literal["auto", "csv", "tsv", "jsonl", "parquet", "arrow", "images"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
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


def read_url_list(files: Sequence[Path], columns: Columns, *, input_format: InputFormat) -> pa.Table:
    """One row per distinct URL, in order of first appearance: `url`, its `captions` (a list), its `digest`.

    A caption column may hold text or lists of texts; a URL that appears in several rows gets all their
    captions, and the digest of the first. A missing caption is an empty one, a row without URL is left out.

    Raises:
        ConfigError: no such file, an unknown format, or a missing column.
    """
    tables = [_read(file, input_format, columns) for file in files]
    table = pa.concat_tables(tables).combine_chunks()
    if not len(table):
        raise ConfigError(f"{files[0]} lists no URL")
    rows, captions = _one_caption_per_row(table["captions"])
    codes = table["url"].combine_chunks().dictionary_encode()
    code_of_row = codes.indices.to_numpy()
    url_of_caption = code_of_row[rows]
    order = np.argsort(url_of_caption, kind="stable")
    counts = np.bincount(url_of_caption, minlength=len(codes.dictionary))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    grouped = pa.ListArray.from_arrays(offsets, captions.take(pa.array(order)))
    _, first_row = np.unique(code_of_row, return_index=True)
    return pa.table(
        {"url": codes.dictionary, "captions": grouped, "digest": table["digest"].take(pa.array(first_row))}
    )


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
        raise ConfigError(f"split: {path} is no folder of Hugging Face datasets; leave it out")
    if path.is_file():
        return [path]
    known = [s for s, kind in EXTENSIONS.items() if input_format in ("auto", kind)]
    files = sorted(p for p in path.glob("*") if p.suffix in known) if path.is_dir() else []
    if not files:
        raise ConfigError(f"url_list: no such file, nor a folder with {', '.join(known)} files: {path}")
    return files


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder and below, and the files of their captions, in order of their paths."""
    images = [file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ConfigError(f"url_list: no folder with images: {folder}")
    captions = [file.with_suffix(".txt") for file in images]
    return sorted({*images, *(file for file in captions if file.is_file())})


def file_digest(files: list[Path]) -> str:
    """SHA-256 over the content of files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _read(file: Path, input_format: InputFormat, columns: Columns) -> pa.Table:
    kind = EXTENSIONS.get(file.suffix) if input_format == "auto" else input_format
    if kind is None:
        raise ConfigError(f"{file}: unknown format {file.suffix!r}{nearest(file.suffix, EXTENSIONS)}")
    try:
        table = _parse(file, kind, columns)
        for column in columns.names():
            if column not in table.column_names:
                raise ConfigError(f"{file} has no column {column!r}{nearest(column, table.column_names)}")
            if table.column_names.count(column) > 1:
                raise ConfigError(f"{file} has several columns {column!r}; rename all but one")
        return _uniform(table, columns)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ConfigError(f"{file} is no {kind} file: {' '.join(str(error).split())}") from error


def _parse(file: Path, kind: str, columns: Columns) -> pa.Table:
    if kind in ("parquet", "arrow"):
        return _read_known(file, columns)
    if kind == "jsonl":
        return read_json_lines(file, columns.names())
    parse = pyarrow.csv.ParseOptions(delimiter="\t" if kind == "tsv" else ",", newlines_in_values=True)
    as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns.names(), pa.string()))
    return pyarrow.csv.read_csv(file, parse_options=parse, convert_options=as_text)


def _read_known(file: Path, columns: Columns) -> pa.Table:
    """The columns asked for; an empty table of those that there are if one is missing."""
    names, known = columns.names(), column_names(file)
    if set(names) <= set(known):
        return read_columns(file, names)
    return pa.Table.from_arrays([pa.nulls(0)] * len(known), known)


def _uniform(table: pa.Table, columns: Columns) -> pa.Table:
    url, caption = (table[column] for column in (columns.url, columns.caption))
    digest = table[columns.digest].cast(pa.string()) if columns.digest else pa.nulls(len(table), pa.string())
    if not (pa.types.is_list(caption.type) or pa.types.is_large_list(caption.type)):
        text = caption.cast(pa.string()).combine_chunks()
        caption = pa.ListArray.from_arrays(np.arange(len(text) + 1, dtype=np.int32), text)
    uniform = {
        "url": url.cast(pa.string()),
        "captions": caption.cast(pa.list_(pa.string())),
        "digest": digest,
    }
    return pa.table(uniform).filter(pc.field("url") != "")


def _one_caption_per_row(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Flatten a column of lists of texts: the row of each caption, and the captions."""
    array = column.combine_chunks()
    rows = array.value_parent_indices().to_numpy()
    without = np.setdiff1d(np.arange(len(array)), rows)
    captions = pa.concat_arrays([array.flatten(), pa.nulls(len(without), pa.string())]).fill_null("")
    rows = np.concatenate([rows, without])
    order = np.argsort(rows, kind="stable")
    return rows[order], captions.take(pa.array(order))
