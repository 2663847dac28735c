"""A folder of shards: WebDataset tar files with a Parquet index beside each, and a manifest.

manifest.json                what is in the folder; written last, so a folder without it is not complete
00000.tar                    000000000.jpg, 000000000.txt, 000000000.json, 000000001.jpg, ...
00000.parquet                one row per URL: key, captions, outcome, sha256, where its image lies in the tar
00000_stats.json             counts, and the checksum of the tar
"""

import warnings
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vlp.shards.choice import Choice, Where
from vlp.shards.contents import READERS, ShardsManifest, ShardStats
from vlp.shards.index_schema import samples_of
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.cache import ShardCache
from vlp.shards.storage.folder import Folder, UnreachableError
from vlp.shards.storage.patience import patiently

INDEX_COLUMNS = ["key", "status", "captions", "image_offset", "image_size"]
MAX_OPEN_FILES = 64  # large corpora have more shards than a process may have open files (often 1,024)


class Shard(NamedTuple):
    """One shard, and which of its samples are taken."""

    folder: Folder
    stats: ShardStats
    choice: Choice

    def samples(self, columns: Sequence[str], *, captioned: bool) -> pa.Table:
        """Columns of the index of the samples that are taken; `status` and `captions` are among them."""
        found = self.choice.read(self.folder, self.stats, columns)
        return samples_of(found, captioned=captioned)

    def num_samples(self, *, captioned: bool) -> int:
        """How many samples are taken, for which the index is read where some are chosen."""
        if not self.choice.conditions:
            return self.stats.successes - (self.stats.without_captions if captioned else 0)
        return len(self.samples(["status", "captions"], captioned=captioned))


class ShardIndex(NamedTuple):
    """Where the samples of one shard lie."""

    keys: pa.Array
    captions: pa.Array
    offsets: np.ndarray
    sizes: np.ndarray


class ShardSet:
    """Random access to the samples of folders of shards, folder by folder in the order of their keys.

    An index is read when its shard is first needed, and the least recently used one is forgotten when there
    are `max_indexes`: memory grows with the shards in use, not with the set. A store that stops to answer is
    waited for.

    Args:
        wheres: which samples of each folder are taken; none for all of all.
        captioned: whether images without a caption are left out.
        sizes: the number of samples of every shard of each folder, where it is known; it is counted else.
        cache: where shards are copied to before they are read; None reads them where they are.

    Raises:
        ValueError: a folder has no manifest, or no such sample; or, on reading, what is there is broken.
    """

    def __init__(
        self,
        *folders: Path | Folder,
        wheres: Sequence[Where] = (),
        captioned: bool = False,
        sizes: Sequence[Sequence[int]] | None = None,
        cache: ShardCache | None = None,
        max_indexes: int | None = None,
    ) -> None:
        self.captioned = captioned
        self.folders = [open_folder(folder) for folder in folders]
        self.manifests = [ShardsManifest.read(folder) for folder in self.folders]
        wheres = wheres or [Where()] * len(self.folders)
        self._choices = [
            where.open(folder, manifest)
            for where, folder, manifest in zip(wheres, self.folders, self.manifests, strict=True)
        ]
        sets = [
            [Shard(folder, stats, choice) for stats in manifest.shards]
            for folder, manifest, choice in zip(self.folders, self.manifests, self._choices, strict=True)
        ]
        self.shard_sizes = [list(of_set) for of_set in sizes or map(self._count, sets)]
        """The number of samples of every shard of each folder."""
        self._check_filled()
        self._shards = [shard for of_set in sets for shard in of_set]
        self.cache = cache
        self.max_indexes = max_indexes
        self._sizes = [size for of_folder in self.shard_sizes for size in of_folder]
        self._ends = np.cumsum(self._sizes)
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._files: dict[int, pa.NativeFile] = {}
        self._uncached: set[int] = set()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        # An open file means nothing in another process, which reads the indexes that it needs.
        return self.__dict__ | {"_files": {}, "_indexes": OrderedDict()}

    @property
    def is_remote(self) -> bool:
        """Whether any of it is read over the network."""
        return any(folder.local_path is None for folder in self.folders)

    @property
    def digest(self) -> str:
        """Identity of the content: the same for the same samples of the same shards, wherever they lie."""
        return "+".join(
            choice.digest(manifest) for manifest, choice in zip(self.manifests, self._choices, strict=True)
        )

    @property
    def profile(self) -> dict[str, Any]:
        """The digest, and what became of the URLs."""
        outcomes = sum((Counter(manifest.outcomes) for manifest in self.manifests), Counter[str]())
        counts = {
            "num_samples": sum(manifest.num_samples for manifest in self.manifests),
            "num_urls": sum(manifest.num_urls for manifest in self.manifests),
        }
        return {"digest": self.digest, **counts, "outcomes": dict(sorted(outcomes.items()))}

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of one sample."""
        shard, row = self._find(index)
        found = self._index(shard)
        size, offset = int(found.sizes[row]), int(found.offsets[row])
        encoded = patiently(partial(self._read_at, shard, size, offset))
        if len(encoded) < size:
            raise ValueError("the tar ends before the image does")
        return encoded

    def captions(self, index: int) -> list[str]:
        """All captions of one sample."""
        shard, row = self._find(index)
        return self._index(shard).captions[row].as_py()

    def distinct_captions(self) -> list[str]:
        """Every caption of any sample once, in the order of the alphabet; reads every index."""
        found = set[str]()
        for shard in self._shards:
            table = shard.samples(["status", "captions"], captioned=False)
            found.update(table["captions"].combine_chunks().flatten().unique().to_pylist())
        return sorted(found)

    def shard_range(self, index: int) -> range:
        """The samples of the shard that a sample is in."""
        shard, row = self._find(index)
        return range(index - row, int(self._ends[shard]))

    def shards_of(self, indices: Sequence[int]) -> set[int]:
        """The numbers of the shards that some samples are in."""
        return set(np.searchsorted(self._ends, indices, side="right").tolist())

    def fetch(self, shard: int) -> None:
        """Have a copy of a shard made in the cache.

        Raises:
            ValueError, OSError: the shard is broken, or cannot be read.
        """
        self._open(shard).close()

    def folder_range(self, index: int) -> range:
        """The samples of the folder that a sample is in."""
        ends = np.cumsum([sum(sizes) for sizes in self.shard_sizes])
        folder = int(np.searchsorted(ends, index, side="right"))
        return range(int(ends[folder - 1]) if folder else 0, int(ends[folder]))

    def describe(self, index: int) -> tuple[str, str]:
        """The file of the shard of a sample, and its key there, as far as the index can be read."""
        shard, row = self._find(index)
        folder, name = self._shards[shard].folder, self._shards[shard].stats.name
        try:
            key = self._index(shard).keys[row].as_py()
        except (ValueError, OSError):
            key = f"row {row}"
        return str(folder / f"{name}.tar"), key

    def read_indexes(self) -> None:
        """Read every index now, so that processes forked from this one share them."""
        for shard in range(len(self._shards)):
            try:
                self._index(shard)
            except UnreachableError:
                raise
            except (ValueError, OSError):  # raised again where a sample of the shard is needed
                continue

    def _count(self, shards: Sequence[Shard]) -> list[int]:
        with ThreadPool(READERS) as pool:
            return pool.map(partial(Shard.num_samples, captioned=self.captioned), shards)

    def _check_filled(self) -> None:
        """Raise a ValueError if there is no sample in a folder."""
        for i, of_folder in enumerate(self.shard_sizes):
            if not sum(of_folder):
                raise ValueError(f"{self.folders[i]} {_why_empty(self.manifests[i], self._choices[i])}")

    def _find(self, index: int) -> tuple[int, int]:
        """The shard of a sample and its row there."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - int(self._ends[shard - 1]) if shard else index

    def _index(self, shard: int) -> ShardIndex:
        if shard in self._indexes:
            self._indexes.move_to_end(shard)
            return self._indexes[shard]
        table = patiently(partial(self._shards[shard].samples, INDEX_COLUMNS, captioned=self.captioned))
        if len(table) != self._sizes[shard]:
            raise ValueError(f"the index has {len(table)} samples and {MANIFEST} {self._sizes[shard]}")
        if self.max_indexes is not None and len(self._indexes) >= self.max_indexes:
            self._indexes.popitem(last=False)
        self._indexes[shard] = ShardIndex(
            table["key"].combine_chunks(),
            table["captions"].combine_chunks(),
            table["image_offset"].to_numpy(),
            table["image_size"].to_numpy(),
        )
        return self._indexes[shard]

    def _read_at(self, shard: int, size: int, offset: int) -> bytes:
        with self._shards[shard].folder.told():
            return self._file(shard).read_at(size, offset)

    def _file(self, shard: int) -> pa.NativeFile:
        if shard not in self._files:
            opened = self._open(shard)
            if len(self._files) == MAX_OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            self._files[shard] = opened
        return self._files[shard]

    def _open(self, shard: int) -> pa.NativeFile:
        folder, stats, _ = self._shards[shard]
        tar = f"{stats.name}.tar"
        if self.cache is None or shard in self._uncached:
            return folder.open(tar)
        try:
            return self.cache.open(folder, tar, stats.tar_sha256)
        except ValueError as error:  # a cache changes no result: without it, the shard would be read, too
            warnings.warn(f"{folder / tar}: {error}; it is read where it lies", stacklevel=2)
            self._uncached.add(shard)
            return folder.open(tar)


def _why_empty(manifest: ShardsManifest, choice: Choice) -> str:
    if choice.conditions:
        return f"holds no sample for which {' and '.join(one.text for one in choice.conditions)}"
    if manifest.num_samples:
        return (
            f"holds {manifest.num_samples:,} images and no caption; objectives that learn from images alone, "
            "such as mae and simmim, can be trained on it"
        )
    return f"holds no sample: every URL failed; its {MANIFEST} counts the reasons"
