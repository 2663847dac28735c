"""Whether a folder of shards is what its manifest says, byte for byte."""

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipelines.config.errors import UserError
from vlp.core.messages import one_line
from vlp.shards.contents import ShardsManifest, ShardStats, committed_shards
from vlp.shards.manifest import MANIFEST
from vlp.shards.outcome import SUCCESS
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder, FolderError, LocalFile
from vlp.shards.tar_samples import Endings, split_name

Content = TypeVar("Content")

SHOWN = 5  # problems of one kind per shard; a torn tar would fill pages


def verify(folder: Path | Folder) -> Iterator[str]:
    """Every problem as one line; none where the folder is whole.

    Raises:
        UserError: there is no such folder.
    """
    folder = open_folder(folder)
    names = folder.names()
    if not names:
        raise UserError(f"no such folder: {folder} (or it is empty)")
    manifest = _read(ShardsManifest.read, folder)
    if manifest is None:
        yield f"{MANIFEST}: missing or no JSON; the folder is not complete"
        found = [_read(ShardStats.read, folder, name) for name in committed_shards(names)]
        shards = [stats for stats in found if stats is not None]
    else:
        shards = list(manifest.shards)
        yield from _check_totals(manifest)
    yield from _strangers(names, {stats.name for stats in shards})
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:  # hashing is done outside of Python's lock
        for problems in pool.imap(lambda stats: list(check_shard(folder, stats)), shards):
            yield from problems
    yield from _repeated_keys(folder, shards)


def check_shard(folder: Folder, stats: ShardStats) -> Iterator[str]:
    """The problems of one shard, given its entry in the manifest."""
    name = stats.name
    committed = _read(ShardStats.read, folder, name)
    if committed is None or replace(committed, examples=stats.examples) != stats:
        yield f"{name}_stats.json: missing, or not what {MANIFEST} says"
    rows = None
    try:
        index = folder.table(f"{name}.parquet")
        rows = index.select(["key", "caption", "status", "image_offset", "image_size"]).to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        yield f"{name}.parquet: cannot be read: {one_line(error)}"
    else:
        outcomes = Counter(row["status"] for row in rows)
        if outcomes != stats.status_dict or len(rows) != stats.count:
            yield f"{name}.parquet: holds {dict(outcomes)}, but {name}_stats.json says {stats.status_dict}"
    try:
        with folder.fetched(f"{name}.tar") as tar:
            yield from _check_tar(tar, stats)
            if rows is not None:
                yield from _first(_compare(name, rows, tar, Endings.of(stats.endings)), name)
    except FileNotFoundError:
        yield f"{name}.tar: missing"


def _check_tar(tar: LocalFile, stats: ShardStats) -> Iterator[str]:
    name, num_bytes = stats.name, os.fstat(tar.fileno()).st_size
    if num_bytes != stats.tar_bytes:
        yield f"{name}.tar: {num_bytes:,} bytes, {stats.tar_bytes:,} expected"
    elif hashlib.file_digest(tar, "sha256").hexdigest() != stats.tar_sha256:
        yield f"{name}.tar: its checksum is not that of {name}_stats.json"


def _compare(name: str, rows: list[dict[str, Any]], file: LocalFile, endings: Endings) -> Iterator[str]:
    """What the index says of each sample against the members of the tar."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = _members(tar)
            for row in rows:
                if row["status"] == SUCCESS:
                    found = members.get(row["key"], {})
                    yield from (
                        f"{name}.tar: {problem}" for problem in _compare_sample(row, found, tar, endings)
                    )
    except (tarfile.TarError, EOFError) as error:
        yield f"{name}.tar: is torn: {one_line(error)}"
        return
    expected = {row["key"] for row in rows}
    yield from (f"{name}.tar: {key} is not in the index" for key in members if key not in expected)


def _members(tar: tarfile.TarFile) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Key -> extension -> member, of every sample."""
    members: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in tar:
        if member.isfile() and (name := split_name(member.name)):
            members.setdefault(name[0], {})[name[1]] = member
    return members


def _compare_sample(
    row: dict[str, Any], members: Mapping[str, tarfile.TarInfo], tar: tarfile.TarFile, endings: Endings
) -> Iterator[str]:
    key = row["key"]
    images = [member for extension, member in members.items() if extension in endings.image]
    texts = [member for extension, member in members.items() if extension in endings.caption]
    if not images or (row["caption"] and not texts and "json" not in members):
        yield f"{key} has no {'caption' if images else 'image'}"
        return
    image = images[-1]
    if (image.offset_data, image.size) != (row["image_offset"], row["image_size"]):
        yield (
            f"{Path(image.name).name} lies at {image.offset_data}, {image.size} bytes; "
            f"the index says {row['image_offset']}, {row['image_size']} bytes"
        )
    written = [text.read().decode(errors="replace").strip() for text in map(tar.extractfile, texts) if text]
    if written and (row["caption"] or "").strip() not in written:
        yield f"{texts[0].name} is not the caption of the index"


def _check_totals(manifest: ShardsManifest) -> Iterator[str]:
    expected = ShardsManifest.of(manifest.shards)
    said, made = manifest.to_json(), expected.to_json()
    for key in ("num_urls", "num_samples", "outcomes", "digest"):
        if said[key] != made[key]:
            yield f"{MANIFEST}: {key} is {said[key]}, its shards make {made[key]}"


def _strangers(files: set[str], shards: set[str]) -> Iterator[str]:
    for file in sorted(files):
        stem, _, suffix = file.rpartition(".")
        if suffix in ("tar", "parquet") and stem not in shards:
            yield f"{file}: is not in {MANIFEST}"
        elif suffix == "tmp":
            yield f"{file}: left by a writer that was killed"


def _repeated_keys(folder: Folder, shards: list[ShardStats]) -> Iterator[str]:
    columns = [_column(folder, f"{stats.name}.parquet", "key") for stats in shards]
    keys = pa.chunked_array(columns, pa.large_string()).value_counts()
    repeated = [entry["values"].as_py() for entry in keys if entry["counts"].as_py() > 1] if len(keys) else []
    if repeated:
        yield f"{len(repeated):,} keys are those of several rows, such as {repeated[0]}"


def _column(folder: Folder, file: str, name: str) -> pa.Array:
    try:
        return folder.table(file, [name])[name].cast(pa.large_string()).combine_chunks()
    except (OSError, pa.ArrowInvalid, KeyError):
        return pa.array([], pa.large_string())  # its own line says so


def _first(problems: Iterator[str], name: str) -> Iterator[str]:
    for number, problem in enumerate(problems):
        if number < SHOWN:
            yield problem
        elif number == SHOWN:
            yield f"{name}: more such problems"


def _read(read: Callable[..., Content], *arguments: Any) -> Content | None:
    """What a file says; None if it is missing or broken. A store that refuses is not the folder's fault."""
    try:
        return read(*arguments)
    except FolderError:
        raise
    except (OSError, ValueError):
        return None
