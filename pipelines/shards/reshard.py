"""New folders of shards from old ones: images are copied as they are, tars and indices are written anew.

A folder gets its name when it is complete, so one that was killed on the way leaves nothing that looks whole.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from vlp.core.messages import one_line
from vlp.shards.contents import READERS, ShardsManifest
from vlp.shards.index_schema import INDEX_SCHEMA, NO_COLUMNS, more_columns
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.whole import writing_folder
from vlp.shards.writing import Sample, write_shard

SHARD_DIGITS = 5


@dataclass(frozen=True)
class SourceFolder:
    """A folder of shards that is read."""

    folder: Folder
    manifest: ShardsManifest = field(repr=False)

    @classmethod
    def open(cls, folder: Path | Folder) -> "SourceFolder":
        """Raises a UserError if the folder is not a complete folder of shards."""
        try:
            return cls(open_folder(folder), ShardsManifest.read(folder))
        except ValueError as error:
            raise UserError(str(error)) from error

    @property
    def shards(self) -> list[str]:
        """Names of the shards, in order."""
        return [stats.name for stats in self.manifest.shards]

    @cached_property
    def more(self) -> pa.Schema:
        """The columns beside ours that the index of any shard has; a UserError if their types differ."""
        with ThreadPool(READERS) as pool:
            found = pool.map(self.folder.columns, [f"{shard}.parquet" for shard in self.shards])
        return unify(map(more_columns, found), of=str(self.folder))

    def index(self, shard: str, columns: list[str] | None = None) -> pa.Table:
        """One row per URL of a shard; with all columns of its folder, or some of ours."""
        found = self.folder.table(f"{shard}.parquet", columns)
        if columns is not None:
            return found
        schema = pa.schema([*INDEX_SCHEMA, *self.more])
        arrays = [
            found[field.name].cast(field.type)
            if field.name in found.column_names
            else pa.nulls(len(found), field.type)
            for field in schema
        ]
        return pa.table(arrays, schema)

    def samples(self, shard: str, rows: pa.Table) -> Iterator[Sample]:
        """Rows of a shard's index, with the encoded images of its tar."""
        with self.folder.fetched(f"{shard}.tar") as tar:
            for row in rows.to_pylist():
                encoded = None
                if row["status"] == SUCCESS:
                    encoded = os.pread(tar.fileno(), row["image_size"], row["image_offset"])
                yield _sample(row, encoded, self.more.names)


def unify(columns: Iterable[pa.Schema], *, of: str) -> pa.Schema:
    """Columns of several indexes as those of one; a UserError if there are two types of one name."""
    try:
        return pa.unify_schemas([NO_COLUMNS, *columns], promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{of}: a column is not of one type: {one_line(error)}") from error


def shard_size(sources: Iterable[SourceFolder]) -> int:
    """The rows of the largest shard."""
    return max((stats.count for source in sources for stats in source.manifest.shards), default=1)


def write_shards(
    samples: Iterable[Sample], output: Path, *, size: int, more: pa.Schema, **described: Any
) -> ShardsManifest:
    """Write samples into a folder of shards of `size` rows, numbered from 0; returns the manifest.

    Args:
        more: names and types of the columns that samples have of their own.
        described: what else the manifest says, such as where the samples come from; also its identity.

    Raises:
        UserError: the folder exists already, or there are no samples.
    """
    check_absent(output)
    with writing_folder(output) as folder:
        shards, left = [], iter(samples)
        while batch := list(islice(left, size)):
            shards.append(write_shard(folder, f"{len(shards):0{SHARD_DIGITS}d}", batch, more=more))
        if not shards:
            raise UserError("no row is selected")
        manifest = ShardsManifest.of(shards, identity=fingerprint(described, size), described=described)
        manifest.write(folder)
        check_absent(output)  # it would be replaced
    return manifest


def check_absent(output: Path) -> None:
    """Raises a UserError if the folder exists: nothing is ever added to a folder of shards."""
    if output.exists():
        raise UserError(f"{output} exists already; choose another output folder")


def renumbered(samples: Iterable[Sample], *, size: int) -> Iterator[Sample]:
    """With fresh keys: the number of the shard, then that within it."""
    digits = len(str(size - 1))
    for number, sample in enumerate(samples):
        yield sample._replace(key=f"{number // size:0{SHARD_DIGITS}d}{number % size:0{digits}d}")


def _sample(row: dict[str, Any], encoded: bytes | None, more: Sequence[str]) -> Sample:
    # Whatever else is stored of an image has a column of its name.
    stored = {name: row[name] for name in StoredImage._fields if name in row}
    image = StoredImage(
        outcome=row["status"],
        error=row["error_message"],
        encoded=encoded,
        size=(row["width"], row["height"]),
        original_size=(row["original_width"], row["original_height"]),
        **stored,
    )
    return Sample(row["key"], row["url"], row["captions"], image, {name: row[name] for name in more})
