"""Images that lie on disk already: files with captions beside them, or a column of tables."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from pipelines.config.errors import UserError, nearest
from pipelines.ingest.failure import Download
from pipelines.ingest.fetch import ImageRequest
from pipelines.ingest.grouping import SCHEMA
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.tables import ARROW, ArrowCells, ParquetCells, column_names, open_cells, read_columns
from pipelines.ingest.url_list import (
    IMAGE_SUFFIXES,
    METADATA_SUFFIXES,
    Columns,
    additional_types,
    caption_lists,
    is_caption,
    list_images,
    no_captions_hint,
    read_url_list,
    with_more,
)
from vlp.core.messages import one_line
from vlp.shards.outcome import SUCCESS

ROW = "#"
FILES_AT_A_TIME = 10_000


def read_image_folder(folder: Path, caption_col: str | None) -> Iterator[pa.Table]:
    """One row per image: its path as `url`, and its `captions`.

    They are the lines of the .txt file of the same name; without one, the texts that a metadata file of
    `datasets` has in its column `caption_col`, beside the column `file_name`. None reads no captions.

    Raises:
        UserError: a metadata file cannot be read, or lacks a column.
    """
    files = list_images(folder)
    metadata = [file for file in files if file.stem == "metadata"]
    described = {} if caption_col is None else _read_metadata(metadata, caption_col)
    texts = {file.with_suffix(""): file for file in files if is_caption(file)}
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    for start in range(0, len(files), FILES_AT_A_TIME):
        part = files[start : start + FILES_AT_A_TIME]
        urls = [file.relative_to(folder).as_posix() for file in part]
        captions = [_captions(texts.get(file.with_suffix(""))) or described.get(file) for file in part]
        yield _table(urls, [None] * len(part) if caption_col is None else captions)


def _read_metadata(files: Sequence[Path], caption_col: str) -> dict[Path, list[str]]:
    """The captions of images that metadata files name, which lie in the folder of the file or below."""
    captions: dict[Path, list[str]] = defaultdict(list)
    columns = Columns(url="file_name", caption=caption_col)
    for file in files:
        if file.suffix in METADATA_SUFFIXES:
            for table in read_url_list([file], columns, input_format="auto"):
                for row in table.to_pylist():
                    captions[file.parent / row["url"]] += row["captions"] or []
    return captions


def read_table_images(
    files: Sequence[Path], root: Path, image_col: str, columns: Columns
) -> Iterator[pa.Table]:
    """One row per row of Parquet or Arrow files: its file below `root` and number as `url`, its `captions`.

    Of `columns` those of captions and of what else is kept are read.

    Raises:
        UserError: a file is none of them, or lacks a column.
    """
    beside = [name for name in (columns.caption, *columns.additional) if name is not None]
    more: pa.Schema | None = None
    for file in files:
        try:
            names = column_names(file)
            for column in (image_col, *beside):
                if column not in names:
                    hint = no_captions_hint if column == columns.caption else nearest
                    raise UserError(f"{file} has no column {column!r}{hint(column, names)}")
            more = more or additional_types(files, columns.additional, "parquet")
            numbers = itertools.count()
            for part in read_columns(file, beside):
                name = file.relative_to(root).as_posix()
                captions = _captions_of(part, columns.caption)
                rows = _table([f"{name}{ROW}{next(numbers)}" for _ in captions], captions)
                yield with_more(rows, part, more)
        except (pa.ArrowException, ValueError, OSError) as error:
            kind = "arrow" if file.suffix == ARROW else "parquet"
            raise UserError(f"{file} is not a valid {kind} file: {one_line(error)}") from error


def _captions_of(part: pa.Table, column: str | None) -> list[list[str] | None]:
    """The captions of every row."""
    return [None] * len(part) if column is None else caption_lists(part[column], column).to_pylist()


def _table(urls: list[str], captions: list[list[str] | None]) -> pa.Table:
    return pa.table([urls, captions, pa.nulls(len(urls))], SCHEMA.names).cast(SCHEMA)


class LocalImages:
    """Reads images one at a time, in place of a `Fetcher`."""

    def __init__(self, config: DownloadConfig) -> None:
        self.root = config.root
        self.column = config.image_col
        self.max_body_bytes = config.max_body_bytes
        self._cells: tuple[str, ParquetCells | ArrowCells] | None = None

    @contextmanager
    def fetch(self, requests: Sequence[ImageRequest]) -> Iterator[Iterator[tuple[int, Download] | None]]:
        """Position and content of every image."""
        yield ((i, self._download(request.url)) for i, request in enumerate(requests))

    def release(self, download: Download) -> None:
        """Nothing is held."""

    def _download(self, name: str) -> Download:
        try:
            body = self._read_file(name) if self.column is None else self._read_row(name, self.column)
        except (OSError, pa.ArrowException) as error:
            return Download("unreadable", str(error), None)
        if body is None:
            return Download("unreadable", "the row holds no image", None)
        if len(body) > self.max_body_bytes:
            return Download("too_large", f"{len(body):,} bytes", None)
        return Download(SUCCESS, None, body)

    def _read_file(self, name: str) -> bytes:
        with (self.root / name).open("rb") as stream:
            return stream.read(self.max_body_bytes + 1)

    def _read_row(self, name: str, column: str) -> bytes | None:
        """One cell; its file stays open, as the next row is mostly in it too."""
        path, _, row = name.rpartition(ROW)
        if self._cells is None or self._cells[0] != path:
            self._cells = (path, open_cells(self.root / path, column))
        value = self._cells[1][int(row)]
        return value["bytes"] if isinstance(value, dict) else value  # Hugging Face keeps {bytes, path}


def _captions(file: Path | None) -> list[str]:
    if file is None:
        return []
    return file.read_text(encoding="utf-8", errors="replace").splitlines()
