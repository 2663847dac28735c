"""What a folder of shards says of itself: its shards, their counts and their checksums."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Self

from vlp.shards.manifest import MANIFEST, Manifest
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

READERS = 16  # at a time, of small files that may be far away
Examples = Mapping[str, Sequence[Mapping[str, str]]]
"""Outcome -> `url` and `error` of some that ended so."""


@dataclass(frozen=True, kw_only=True)
class ShardStats:
    """The counts of one shard, in a file beside its tar; keys that img2dataset has are named as there."""

    name: str
    count: int
    """URLs."""
    successes: int
    failed_to_download: int | None = None
    """None of a tar that was only indexed, as the next one."""
    failed_to_resize: int | None = None
    without_captions: int = 0
    """Successes that have no caption."""
    status_dict: Mapping[str, int]
    """How many URLs ended how."""
    retried: Mapping[str, int] = field(default_factory=dict)
    """How many of them had ended how in earlier shards."""
    examples: Examples | None = None
    """Some of every outcome but success; None in a manifest."""
    tar_sha256: str
    tar_bytes: int
    problem: str | None = None
    """Where and why the tar breaks off."""
    endings: Mapping[str, Sequence[str]] | None = None
    """Which members of a tar that was only indexed are what."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """What else the file of another writer holds."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file: without what is None."""
        own = {key: getattr(self, key) for key in self._keys()}
        return {key: value for key, value in own.items() if value is not None} | dict(self.others)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse; a TypeError or AttributeError where a count is missing."""
        own = cls._keys()
        others = {key: value for key, value in content.items() if key not in own}
        return cls(**{key: content[key] for key in own if key in content}, others=others)

    @classmethod
    def read(cls, folder: Folder, name: str) -> Self:
        """The counts of a shard that is whole.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: its file is broken.
        """
        file = stats_file(name)
        try:
            return cls.from_json(folder.read_json(file))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / file} is broken; delete it, and the shard is made again") from error

    def write(self, folder: Folder) -> None:
        """Say that a shard is whole."""
        folder.write_json(stats_file(self.name), self.to_json())

    @classmethod
    def _keys(cls) -> list[str]:
        return [part.name for part in fields(cls) if part.name != "others"]


@dataclass(frozen=True, kw_only=True)
class ShardsManifest(Manifest):
    """The manifest of a folder of shards."""

    identity: str
    """Of what decided the content: a URL list and its settings, or the digest of tars that were found."""
    num_urls: int
    num_samples: int
    outcomes: Mapping[str, int]
    """What became of the URLs; one that was tried again counts by its last outcome."""
    shards: tuple[ShardStats, ...]
    described: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of it, such as which folders its samples come from."""

    @property
    def num_without_captions(self) -> int:
        """Samples that have no caption."""
        return sum(stats.without_captions for stats in self.shards)

    @classmethod
    def of(
        cls,
        shards: Iterable[ShardStats],
        *,
        identity: str | None = None,
        described: Mapping[str, Any] | None = None,
    ) -> Self:
        """Add up shards; their digest is the identity unless another one is given."""
        kept = tuple(replace(stats, examples=None) for stats in shards)
        outcomes, digest = count_outcomes(kept), set_digest(kept)
        return cls(
            identity=identity or digest,
            digest=digest,
            num_urls=outcomes.total(),
            num_samples=sum(stats.successes for stats in kept),
            outcomes=dict(sorted(outcomes.items())),
            shards=kept,
            described=described or {},
        )

    def to_json(self) -> dict[str, Any]:
        own = {
            "identity": self.identity,
            "digest": self.digest,
            "num_urls": self.num_urls,
            "num_samples": self.num_samples,
            "outcomes": dict(self.outcomes),
            "shards": [stats.to_json() for stats in self.shards],
        }
        return own | dict(self.described)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        own = [part.name for part in fields(cls) if part.name != "described"]
        values: dict[str, Any] = {key: content[key] for key in own}
        values["shards"] = tuple(map(ShardStats.from_json, content["shards"]))
        values["described"] = {key: value for key, value in content.items() if key not in own}
        return cls(**values)

    @classmethod
    def read(cls, folder: Path | Folder, name: str = MANIFEST) -> Self:
        """What a folder of shards holds; a ValueError names what to do where it is none, or broken."""
        place = open_folder(folder)
        if str(place).endswith(".tar"):
            raise ValueError(
                f"{place} is not a folder of shards; name the folder that the tars are in, after "
                "`vlp data index` where `vlp download` did not make it"
            )
        if name not in place.names():
            raise ValueError(
                f"{place} is not a folder of shards: it has no {name}; make one with `vlp download`, "
                "or with `vlp data index` of tars that are there"
            )
        return super().read(place, name)


def stats_file(name: str) -> str:
    """The file of a shard's counts, which is written last."""
    return f"{name}_stats.json"


def committed_shards(files: Iterable[str]) -> list[str]:
    """Names of the shards that are whole, given the names of all files of their folder."""
    end = stats_file("")
    return sorted(file.removesuffix(end) for file in files if file.endswith(end))


def read_all_stats(folder: Folder, names: Sequence[str]) -> list[ShardStats]:
    """The counts of shards that are whole; fails as `ShardStats.read`."""
    with ThreadPool(READERS) as pool:
        return pool.map(partial(ShardStats.read, folder), names)


def count_outcomes(shards: Iterable[ShardStats]) -> Counter[str]:
    """How many URLs ended how; one that was tried again counts by its last outcome."""
    outcomes = Counter[str]()
    for stats in shards:
        outcomes.update(stats.status_dict)
        outcomes.subtract(stats.retried)
    return +outcomes


def set_digest(shards: Iterable[ShardStats]) -> str:
    """Identity of the content of a set: SHA-256 over the checksums of its tars."""
    checksums = [stats.tar_sha256 for stats in shards]
    return hashlib.sha256(json.dumps([checksums]).encode()).hexdigest()
