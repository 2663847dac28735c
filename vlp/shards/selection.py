"""Columns about the samples of a folder of shards, in a folder beside it: nothing of the shards is copied.

manifest.json            which shards it is about, and its columns; written last
CHECKSUM-MADE.parquet    of the shard whose tar has this checksum: a row per row of its index, with its key
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.shards.contents import ShardsManifest, ShardStats
from vlp.shards.manifest import MANIFEST, Manifest
from vlp.shards.storage.folder import Folder

KEY = "key"


@dataclass(frozen=True, kw_only=True)
class SelectionManifest(Manifest):
    """The manifest of a selection."""

    shards: str
    """Digest of the folder of shards that it is about."""
    made: str
    """Identity of how it was made; part of the names of its files."""
    columns: Mapping[str, str]
    """Name of each column -> its type."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """What was counted while it was made."""

    def file(self, stats: ShardStats) -> str:
        """The file of a shard."""
        return selection_file(stats, self.made)


def selection_file(stats: ShardStats, made: str) -> str:
    """The file of a shard in a selection that was made in some way."""
    return f"{stats.tar_sha256[:16]}-{made[:16]}.parquet"


def write_columns(folder: Folder, file: str, keys: pa.ChunkedArray, columns: Mapping[str, Any]) -> None:
    """Write what is known of the rows of a shard's index."""
    table = pa.table({KEY: keys, **columns})
    with folder.writing(file) as stream:
        pq.write_table(table, stream)


@dataclass(frozen=True)
class Selection:
    """A selection that is read."""

    folder: Folder
    manifest: SelectionManifest

    @classmethod
    def open(cls, folder: Folder, shards: ShardsManifest) -> Self:
        """The selection of a folder.

        Raises:
            ValueError: it is none, is not complete, or is about other shards.
        """
        content = folder.read_json(MANIFEST) if MANIFEST in folder.names() else {}
        if not {"shards", "made", "columns"}.issubset(content):
            raise ValueError(
                f"{folder} is not a selection, or is not complete; make one with `vlp data balance` or "
                "`vlp data score`"
            )
        manifest = SelectionManifest.from_json(content)
        if manifest.shards != shards.digest:
            raise ValueError(f"{folder} is a selection of other shards; make one of these")
        return cls(folder, manifest)

    @property
    def columns(self) -> pa.Schema:
        """Names and types of its columns."""
        return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in self.manifest.columns.items()])

    def of_shard(self, stats: ShardStats, keys: pa.ChunkedArray) -> pa.Table:
        """Its columns for the rows of a shard's index, which has these keys.

        Raises:
            ValueError: it is about other rows.
        """
        file = self.manifest.file(stats)
        try:
            found = self.folder.table(file)
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.folder} lacks {file}, which is about {stats.name}; run the command that made the "
                "selection again"
            ) from error
        if not found[KEY].equals(keys):
            raise ValueError(
                f"{self.folder / file} is about other keys than the index of {stats.name} has; delete the "
                "file, and run the command that made the selection again"
            )
        return found.drop_columns(KEY)
