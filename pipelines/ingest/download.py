"""A URL list to shards of images and captions, with img2dataset's options, layout and resizer.

A shard is the unit of work: it is fetched, resized and written by one worker, and exists whole or not at
all. What is committed is what is done, so a stage that was interrupted goes on with the missing shards, and
the bytes of every shard are those of an undisturbed run.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.compute.workers import open_workers
from pipelines.config.errors import UserError, blaming
from pipelines.config.identity import file_digest, fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import absolute_paths
from pipelines.ingest.duplicates import drop, find_duplicates
from pipelines.ingest.grouping import group_by_url
from pipelines.ingest.local import read_image_folder, read_table_images
from pipelines.ingest.lock import download_lock
from pipelines.ingest.monitor import Board, Monitor
from pipelines.ingest.plan import ShardPlan, add_retry, write_plan
from pipelines.ingest.remote_list import list_on_this_machine
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.summary import write_summary
from pipelines.ingest.url_list import Columns, has_types, read_url_list
from pipelines.ingest.worker import IngestShard
from pipelines.tracking.journal import Journal
from vlp.shards.contents import ShardsManifest, ShardStats, count_outcomes, read_all_stats
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder


def download(
    config: DownloadConfig,
    output: Path | Folder,
    *,
    machine: MachineConfig,
    journal: Journal,
    retry: Sequence[str] | None = None,
) -> ShardsManifest:
    """Make the folder of shards; returns its manifest.

    Args:
        retry: outcomes whose URLs are tried again once everything else is done, in shards of their own; []
            for every failure, None for no retry. A retry that was interrupted is only finished.

    Raises:
        UserError: the URL list cannot be read, the folder was made from another list or other settings,
            another download or nobody at all can write there, or too few URLs succeed.
    """
    output = open_folder(output)
    current = plan(config, output)
    journal.dataset(
        name=config.url_list.name,
        digest=current.identity,
        source=str(config.url_list.absolute()),
        context="download",
        profile={"num_urls": current.num_urls, "identity": current.identity},
    )
    with download_lock(output) as check_lock:
        is_retry_cut = len(current.rounds) > 1 and current.missing(output)
        _make_shards(config, output, current, machine=machine, journal=journal, check_lock=check_lock)
        if retry is not None and not is_retry_cut:
            size = config.number_sample_per_shard
            current = add_retry(current, output, only=retry, shard_size=size)
            _make_shards(config, output, current, machine=machine, journal=journal, check_lock=check_lock)
        _drop_duplicates(config, output, current, machine)
        check_lock()
        return _finish(output, current, journal)


def plan(config: DownloadConfig, output: Path | Folder) -> ShardPlan:
    """Divide the URL list into shards, unless that was done before."""
    with list_on_this_machine(config) as here:
        return _plan(here, open_folder(output))


def _plan(config: DownloadConfig, output: Folder) -> ShardPlan:
    files = config.list_files()
    identity = fingerprint(file_digest(files), config.identity)
    existing = ShardPlan.read(output)
    if existing is not None:
        if existing.identity != identity:
            raise UserError(
                f"{output} was made from another URL list or other settings; choose another output folder"
            )
        return existing
    if any(name.endswith(".tar") for name in output.names()):
        raise UserError(f"{output} holds shards that no download made; choose another output folder")
    rows = group_by_url(
        _read_list(config, files),
        max_bytes=config.max_grouping_bytes,
        guess_types=config.image_col is None and not has_types(files, config.input_format),
    )
    first = next(rows)  # after the whole list was read: what is wrong with it is known before the lock
    with download_lock(output):
        rows = itertools.chain([first], rows)
        return write_plan(rows, output, identity=identity, shard_size=config.number_sample_per_shard)


def _read_list(config: DownloadConfig, files: list[Path]) -> Iterator[pa.Table]:
    if config.input_format == "images":
        return read_image_folder(config.path, config.caption_col)
    columns = Columns(
        url=config.url_col,
        caption=config.caption_col,
        digest=config.verify_hash[0] if config.verify_hash else None,
        additional=config.save_additional_columns,
    )
    if config.image_col is not None:
        return read_table_images(files, config.root, config.image_col, columns)
    return read_url_list(files, columns, input_format=config.input_format)


def _make_shards(
    config: DownloadConfig,
    output: Folder,
    current: ShardPlan,
    *,
    machine: MachineConfig,
    journal: Journal,
    check_lock: Callable[[], None],
) -> None:
    todo = current.missing(output)
    if not todo:
        return
    if len(todo) < len(current.shards):
        done = len(current.shards) - len(todo)
        print(f"[download] {done:,} of {len(current.shards):,} shards are there already", flush=True)
    made = _read_stats(output, sorted(set(current.shards) - set(todo)))
    workers = open_workers(machine)
    board = workers.share(Board, floor=config.min_success_rate, window=config.success_window)
    num_workers = min(workers.size, len(todo))
    here = (absolute_paths(config), output.absolute())  # nodes of a cluster work in folders of their own
    arguments = (*here, num_workers, partial(board, "report"), partial(board, "begin"))
    monitor = Monitor(
        partial(board, "outcomes"),
        before=count_outcomes(made) - current.retried(output, todo),
        num_requests=sum(stats.count for stats in made),
        total=current.num_urls,
        journal=journal,
    )
    with monitor, closing(workers.map(IngestShard, arguments, [{"name": name} for name in todo])) as rows:
        for row in rows:
            check_lock()
            if row["failure"]:
                rows.close()
                output.remove_temporary()  # of the others, that were stopped in the middle of a shard
                raise UserError(
                    f"{output}: {row['failure']}; once that is mended, the same command goes on from here"
                )
            if not row["stats"]:
                raise UserError(f"download stopped: {board('problem')}")


class _DropDuplicates:
    def __init__(self, output: Folder) -> None:
        self.output = output

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        drop(self.output, row["name"], json.loads(row["drops"]))
        return {"name": row["name"]}


def _drop_duplicates(
    config: DownloadConfig, output: Folder, current: ShardPlan, machine: MachineConfig
) -> None:
    if config.drop_duplicates == "none":
        return
    near = config.near_duplicate_distance if config.drop_duplicates == "near" else None
    drops = find_duplicates(output, current.shards, near=near, max_bytes=config.max_grouping_bytes)
    if not drops:
        return
    rows = [{"name": name, "drops": json.dumps(keys)} for name, keys in drops.items()]
    for _ in open_workers(machine).map(_DropDuplicates, (output.absolute(),), rows):
        pass
    num_images = sum(map(len, drops.values()))
    print(f"[download] dropped {num_images:,} duplicates from {len(drops):,} shards", flush=True)


def _finish(output: Folder, current: ShardPlan, journal: Journal) -> ShardsManifest:
    shards = _read_stats(output, current.shards)
    outcomes = count_outcomes(shards)
    assert outcomes.total() == current.num_urls, f"{outcomes.total()} outcomes of {current.num_urls} URLs"
    for file in write_summary(output.local_path or journal.folder, outcomes, shards):
        journal.artifact(file, folder="download")  # is read when it is delivered, from this machine
        if output.local_path is None:
            output.write(file.name, file.read_bytes())
    num_requests = sum(stats.count for stats in shards)
    journal.metrics({f"download/{k}": v for k, v in outcomes.items()}, step=num_requests)
    manifest = ShardsManifest.of(shards, identity=current.identity)
    manifest.write(output)
    output.remove_temporary()
    return manifest


def _read_stats(output: Folder, names: Sequence[str]) -> list[ShardStats]:
    with blaming():
        return read_all_stats(output, names)
