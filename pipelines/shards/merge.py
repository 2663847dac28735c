"""Several folders of shards into one: the image of a URL once, with every caption that it has anywhere."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.config.errors import UserError
from pipelines.shards.reshard import SourceFolder, check_absent, renumbered, shard_size, unify, write_shards
from pipelines.tracking.terminal import Progress
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS
from vlp.shards.storage.folder import Folder
from vlp.shards.writing import Sample


class Overlap(NamedTuple):
    """What folders have in common."""

    keep: np.ndarray
    """(rows of all folders,) bool: the first row of each image of each URL."""
    captions: dict[int, list[str]]
    """Number of a row that is kept, and those of the rows that it stands for, too, where they differ."""
    num_repeated_urls: int
    """Rows that are left out, as another one has their URL and image, or one that succeeded their URL."""
    num_repeated_keys: int
    """Rows whose key is also that of an earlier row."""


def merge(folders: Sequence[Path | Folder], output: Path) -> ShardsManifest:
    """Write the folder; returns its manifest, with the counts of what occurred twice.

    All rows get fresh keys, as the numbering of every folder begins at 0; which folders they come from is in
    the manifest. Rows of one URL whose images differ are all kept: it names a file, or what is served there
    has changed. The memory it takes is that of the distinct URLs.

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
        renumbered(_kept(sources, overlap), size=size),
        output,
        size=size,
        more=unify((source.more for source in sources), of=" and ".join(map(str, folders))),
        merged_from=[source.manifest.digest for source in sources],
        num_repeated_urls=overlap.num_repeated_urls,
        num_repeated_keys=overlap.num_repeated_keys,
    )


def find_overlap(sources: Sequence[SourceFolder]) -> Overlap:
    """Which rows to keep, over all shards of all folders in order."""
    columns = ["key", "url", "status", "sha256"]
    index = pa.concat_tables(source.index(name, columns) for source in sources for name in source.shards)
    key, first = _codes(index["key"]), _first_alike(index)
    keep = first == np.arange(len(first))
    num_repeated = int(np.count_nonzero(~keep))
    return Overlap(keep, _join_captions(sources, first), num_repeated, len(key) - len(np.unique(key)))


def _first_alike(index: pa.Table) -> np.ndarray:
    """(N,) number of the row that is kept in the place of each row, its own if it is kept itself.

    Successes of a URL are alike if their images are. A failure gives way to the first success of its address,
    but not to that of a file's name, which may be another file's.
    """
    url, image = _codes(index["url"]), _codes(index["sha256"])
    has_failed = index["status"].to_numpy() != SUCCESS
    is_address = np.array(["://" in (text or "") for text in index["url"].to_pylist()], dtype=bool)
    best = _first_of_group((url,), has_failed)
    image = np.where(has_failed, len(index), image)
    image = np.where(has_failed & is_address, image[best], image)
    return _first_of_group((url, image), has_failed)


def _first_of_group(codes: tuple[np.ndarray, ...], has_failed: np.ndarray) -> np.ndarray:
    """(N,) number of the first success of the rows with the same codes, or of the first row."""
    number = np.arange(len(has_failed))
    order = np.lexsort((number, has_failed, *codes))
    starts = np.any([np.diff(code[order], prepend=code[order[:1]]) != 0 for code in codes], axis=0)
    first = np.empty_like(number)
    first[order] = order[np.maximum.accumulate(np.where(starts, number, 0))]
    return first


def _join_captions(sources: Sequence[SourceFolder], first: np.ndarray) -> dict[int, list[str]]:
    """All captions of rows that stand for others, each once and in order."""
    captions: dict[int, list[str]] = {int(i): [] for i in first[first != np.arange(len(first))]}
    rows = (
        texts
        for source in sources
        for name in source.shards
        for texts in source.index(name, ["captions"])["captions"].to_pylist()
    )
    if captions:
        for place, texts in zip(first.tolist(), rows, strict=True):
            if place in captions:
                captions[place] += [text for text in texts if text]
    return {i: list(dict.fromkeys(texts)) for i, texts in captions.items() if texts}


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each distinct text, and one of its own for each that is missing."""
    codes = column.cast(pa.large_string()).combine_chunks().dictionary_encode().indices
    missing = codes.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, -1 - np.arange(len(codes)), codes.fill_null(0).to_numpy())


def _kept(sources: Sequence[SourceFolder], overlap: Overlap) -> Iterator[Sample]:
    progress = Progress("merge", sum(len(source.shards) for source in sources), "shards")
    done = start = 0
    for source in sources:
        for name in source.shards:
            rows = source.index(name)
            kept = np.flatnonzero(overlap.keep[start : start + len(rows)])
            for number, sample in zip(kept + start, source.samples(name, rows.take(kept)), strict=True):
                yield sample._replace(captions=overlap.captions.get(int(number), sample.captions))
            start, done = start + len(rows), done + 1
            progress.update(done)
