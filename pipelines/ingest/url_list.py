"""A URL list, in any of the usual formats, to rows of one form, part by part."""

import itertools
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
from pipelines.ingest.json_lines import open_text, read_json_lines
from pipelines.ingest.patterns import expand, is_pattern
from pipelines.ingest.tables import column_names, read_columns, read_types
from vlp.core.messages import one_line

InputFormat = Literal["auto", "csv", "tsv", "jsonl", "txt", "parquet", "arrow", "images"]

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"),
    *(".heic", ".heif", ".jxl"),  # of which the outcome says that nothing reads them
}
METADATA_SUFFIXES = {".jsonl", ".csv", ".parquet"}
EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "txt",
}
COMPRESSED = {".gz", ".bz2", ".zst"}
DELIMITERS = {"csv": ",", "tsv": "\t"}
IMAGE_COLUMNS = {"image", "images", "img", "jpg", "jpeg", "png"}
LINES_AT_A_TIME = 50_000


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a URL list hold what."""

    url: str
    caption: str | None
    """None where there are no captions."""
    digest: str | None = None
    """Column of hex digests of the images' bytes, if there is one."""
    additional: tuple[str, ...] = ()
    """Columns that are kept as they are."""

    def names(self) -> list[str]:
        """The columns that are read."""
        names = (self.url, self.caption, self.digest, *self.additional)
        return list(dict.fromkeys(name for name in names if name is not None))


def read_url_list(
    files: Sequence[Path], columns: Columns, *, input_format: InputFormat
) -> Iterator[pa.Table]:
    """The rows of a list, part by part: `url`, its `captions` (a list), its `digest`, and what else is kept.

    A caption column may hold text or lists of texts. A row without URL is left out.

    Raises:
        ConfigError: a file that cannot be read, an unknown format, a missing column, or no URL at all.
    """
    num_rows = 0
    more = additional_types(files, columns.additional, input_format)
    for file in files:
        for table in _read(file, input_format, columns, more):
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
    if not path.exists() and is_pattern(str(path)):
        return expand(path)
    files = sorted(p for p in path.glob("*") if is_list(p.name, input_format)) if path.is_dir() else []
    if not files:
        known = ", ".join(_known(input_format))
        raise ConfigError(f"url_list: no such file, nor a folder with {known} files: {path}")
    return files


def is_list(name: str, input_format: InputFormat) -> bool:
    """Whether a file of a folder is read as a list."""
    return _suffix(Path(name)) in _known(input_format)


def _known(input_format: InputFormat) -> list[str]:
    # A .txt file in a folder of lists is rather a note than a list.
    kinds = {*EXTENSIONS.values()} - {"txt"} if input_format == "auto" else {input_format}
    return [suffix for suffix, kind in EXTENSIONS.items() if kind in kinds]


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder and below, and the files of their captions, in order of their paths.

    Captions are in a .txt file beside each image, or in a metadata file of `datasets` in a folder above it.
    """
    files = [file for file in folder.rglob("*") if file.is_file()]
    images = {file for file in files if file.suffix.lower() in IMAGE_SUFFIXES}
    if not images:
        raise ConfigError(f"url_list: no folder with images: {folder}")
    named = {image.with_suffix("") for image in images}
    captions = {file for file in files if is_caption(file) and file.with_suffix("") in named}
    metadata = {file for file in files if file.stem == "metadata" and file.suffix in METADATA_SUFFIXES}
    return sorted(images | captions | metadata)


def is_caption(file: Path) -> bool:
    """Whether a file beside an image of its name holds its captions."""
    return file.suffix.lower() == ".txt"


def _suffix(file: Path) -> str:
    """The ending that tells the format, without that of a compression."""
    return Path(file.stem).suffix if file.suffix in COMPRESSED else file.suffix


def additional_types(files: Sequence[Path], names: Sequence[str], input_format: InputFormat) -> pa.Schema:
    """Names and types of columns that are kept: those of the files, or text where a file's have no types."""
    if not names or not has_types(files, input_format):
        return pa.schema([(name, pa.string()) for name in names])
    try:
        found = pa.unify_schemas([read_types(file) for file in files], promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"save_additional_columns: {files[0].parent}: {one_line(error)}") from error
    return pa.schema([(name, _type(found, name)) for name in names])


def _type(columns: pa.Schema, name: str) -> pa.DataType:
    place = columns.get_field_index(name)  # what is not there is refused where it is read
    return pa.null() if place < 0 else columns.field(place).type


def has_types(files: Sequence[Path], input_format: InputFormat) -> bool:
    """Whether the columns of all files have types of their own."""
    return {_format(file, input_format) for file in files} <= {"parquet", "arrow"}


def _format(file: Path, input_format: InputFormat) -> str | None:
    return EXTENSIONS.get(_suffix(file)) if input_format == "auto" else input_format


def _read(file: Path, input_format: InputFormat, columns: Columns, more: pa.Schema) -> Iterator[pa.Table]:
    kind = _format(file, input_format)
    if kind is None:
        formats = ", ".join(dict.fromkeys(EXTENSIONS.values()))
        raise UserError(f"{file}: unknown format {file.suffix!r}; set input_format to one of {formats}")
    try:
        for table in _parse(file, kind, columns):
            for column in columns.names():
                if column not in table.column_names:
                    raise UserError(f"{file} has no column {column!r}{_remedy(column, columns, table)}")
                if table.column_names.count(column) > 1:
                    raise UserError(f"{file} has several columns {column!r}; rename all but one")
            yield _uniform(table, columns, more)
    except (pa.ArrowException, ValueError, OSError, EOFError) as error:
        raise UserError(f"{file} is not a valid {kind} file: {one_line(error)}") from error


def _remedy(column: str, columns: Columns, table: pa.Table) -> str:
    """What to do about a column that is not there."""
    images = IMAGE_COLUMNS & set(table.column_names)
    if column == columns.url and images:
        image = min(images)
        return f"; if the images themselves are in the column {image}, set image_col={image}"
    if column == columns.caption:
        return no_captions_hint(column, table.column_names)
    return nearest(column, table.column_names)


def no_captions_hint(column: str, names: Sequence[str]) -> str:
    """What to do about captions that are not in the column that is asked for."""
    return f"{nearest(column, names)}; caption_col=null takes images without captions"


def _parse(file: Path, kind: str, columns: Columns) -> Iterator[pa.Table]:
    """The columns asked for, part by part; an empty table of those that there are if one is missing."""
    names = columns.names()
    if kind == "jsonl":
        yield from read_json_lines(file, names, as_text=columns.additional)
    elif kind == "txt":
        yield from _parse_lines(file, columns)
    elif kind in ("parquet", "arrow"):
        known = column_names(file)
        yield from read_columns(file, names) if set(names) <= set(known) else [_empty(known)]
    else:
        _check_delimiter(file, kind, names)
        yield from (read_tsv if kind == "tsv" else read_csv)(file, names)


def _parse_lines(file: Path, columns: Columns) -> Iterator[pa.Table]:
    """One address per line, without captions."""
    with open_text(file) as stream:
        urls = (line.strip() for line in stream)
        while part := list(itertools.islice(urls, LINES_AT_A_TIME)):
            others = {name: pa.nulls(len(part), pa.string()) for name in columns.names()}
            yield pa.table(others | {columns.url: pa.array(part, pa.string())})


def _check_delimiter(file: Path, kind: str, names: Sequence[str]) -> None:
    """Refuse a list whose columns are all there, but separated by something else."""
    with open_text(file) as stream:
        header = stream.readline(2**16)
    for other in ("\t", ",", ";", "|"):
        if set(names) <= {name.strip(' "\r\n\ufeff') for name in header.split(other)}:
            if other != DELIMITERS[kind]:
                read_as = next((name for name, mark in DELIMITERS.items() if mark == other), None)
                remedy = f"set input_format={read_as}" if read_as else f"write it with {DELIMITERS[kind]!r}"
                raise UserError(f"{file} separates its columns by {other!r}, {kind} files do not; {remedy}")
            return


def _empty(names: Sequence[str]) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(0)] * len(names), list(names))


def _uniform(table: pa.Table, columns: Columns, more: pa.Schema) -> pa.Table:
    nothing = pa.nulls(len(table))
    digest = table[columns.digest] if columns.digest else nothing
    captions = caption_lists(table[columns.caption], columns.caption) if columns.caption else nothing
    uniform = pa.table([table[columns.url], captions, digest], SCHEMA.names).cast(SCHEMA)
    return with_more(uniform, table, more).filter(pc.field("url") != "")


def with_more(rows: pa.Table, source: pa.Table, more: pa.Schema) -> pa.Table:
    """Rows of a list with a column `more`, of what else is kept of each, if anything is."""
    if not more.names:
        return rows
    arrays = [source[field.name].cast(field.type).combine_chunks() for field in more]
    return rows.append_column("more", pa.StructArray.from_arrays(arrays, fields=list(more)))


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
