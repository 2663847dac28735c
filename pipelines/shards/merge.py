"""Several folders of shards into one, each URL once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.config.errors import UserError
from pipelines.shards.reshard import SourceFolder, check_absent, renumbered, shard_size, write_shards
from pipelines.tracking.terminal import Progress
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS
from vlp.shards.storage.folder import Folder
from vlp.shards.writing import Sample


class Overlap(NamedTuple):
    """What folders have in common."""

    keep: np.ndarray
    """(rows of all folders,) bool: one row of each URL, the first that succeeded if any did."""
    num_repeated_urls: int
    """Rows that are left out, as their URL is in another."""
    num_repeated_keys: int
    """Rows whose key is also that of an earlier row."""


def merge(folders: Sequence[Path | Folder], output: Path) -> ShardsManifest:
    """Write the folder; returns its manifest, with the counts of what occurred twice.

    All rows get fresh keys, as the numbering of every folder begins at 0; which folders they come from is in
    the manifest. The memory it takes is that of the distinct URLs.

    Raises:
        UserError: a folder is not complete, or the output exists.
    """
    if len(folders) < 2:
        raise UserError("name at least two folders to merge")
    check_absent(output)
    sources = [SourceFolder.open(folder) for folder in folders]
    overlap = find_overlap(sources)
    size = shard_size(sources)
    return write_shards(
        renumbered(_kept(sources, overlap.keep), size=size),
        output,
        size=size,
        merged_from=[source.manifest.digest for source in sources],
        num_repeated_urls=overlap.num_repeated_urls,
        num_repeated_keys=overlap.num_repeated_keys,
    )


def find_overlap(sources: Sequence[SourceFolder]) -> Overlap:
    """Which rows to keep, over all shards of all folders in order."""
    columns = ["key", "url", "status"]
    index = pa.concat_tables(source.index(name, columns) for source in sources for name in source.shards)
    url, key = _codes(index["url"]), _codes(index["key"])
    has_failed = index["status"].to_numpy() != SUCCESS
    order = np.lexsort((np.arange(len(url)), has_failed, url))  # by URL; successes first, then as they come
    keep = np.zeros(len(url), dtype=bool)
    keep[order[np.diff(url[order], prepend=-1) != 0]] = True
    return Overlap(keep, int(np.count_nonzero(~keep)), len(key) - len(np.unique(key)))


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each distinct text."""
    return column.cast(pa.large_string()).combine_chunks().dictionary_encode().indices.to_numpy()


def _kept(sources: Sequence[SourceFolder], keep: np.ndarray) -> Iterator[Sample]:
    progress = Progress("merge", sum(len(source.shards) for source in sources), "shards")
    done = start = 0
    for source in sources:
        for name in source.shards:
            rows = source.index(name)
            yield from source.samples(name, rows.filter(pa.array(keep[start : start + len(rows)])))
            start, done = start + len(rows), done + 1
            progress.update(done)
