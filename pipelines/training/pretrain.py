"""Ray Train: shards to a trained model, with every objective and mask."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipelines.checkpoints.checkpoint import CONFIG, write_settings
from pipelines.checkpoints.mirror import restore
from pipelines.checkpoints.store import list_saved, newest_whole, ranked
from pipelines.compute.cluster import connect_for_training
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import absolute_paths
from pipelines.tracking.journal import Journal
from pipelines.training.calibration import calibrate_mask, recalibration_steps
from pipelines.training.checks import check_run
from pipelines.training.identity import claim, run_mirror
from pipelines.training.job import CHECKPOINTS, TrainJob
from pipelines.training.mask_preview import preview_masks
from pipelines.training.pace import at_known_pace
from pipelines.training.workers import run_workers
from vlp.checkpoint import MODEL, SETTINGS
from vlp.run import RunConfig, validation_metric
from vlp.shards.manifest import MANIFEST
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.local import LocalFolder


def pretrain(
    config: RunConfig,
    output: Path,
    *,
    machine: MachineConfig,
    journal: Journal,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Train one run, or go on where it was; writes and returns its manifest.

    Args:
        callbacks: of Ray Train, that hear every report.

    Raises:
        ConfigError: the run cannot work; found before any worker starts.
    """
    shards = check_run(config, machine)
    output, label = output.absolute(), f"pretrain {config.name}"
    claim(config, output)
    mirror = run_mirror(config, machine)
    if mirror is not None:
        claim(config, mirror)
        restore(output / CHECKPOINTS, mirror, label=label)
    newest = newest_whole(output / CHECKPOINTS, label=label)
    calibrated = calibrate_mask(config, shards, output, journal)
    connect_for_training(machine)
    job = TrainJob(absolute_paths(calibrated), machine, output, journal, mirror=mirror)
    job = replace(job, config=at_known_pace(job, newest))
    job = replace(job, recalibration_steps=recalibration_steps(config.mask, job.config.num_masked_steps))
    _journal_inputs(job.config, shards, output, journal)
    checkpoint = run_workers(job, callbacks)
    _journal_checkpoints(job, checkpoint)
    manifest = {
        "digest": weights_digest(checkpoint),
        "checkpoint": str(checkpoint.relative_to(output)),
        "steps": job.config.num_steps,
    }
    LocalFolder(output).write_json(MANIFEST, manifest)
    return manifest


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of every weight and buffer."""
    digest = hashlib.sha256()
    weights = torch.load(checkpoint / MODEL, map_location="cpu", weights_only=True)
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _journal_checkpoints(job: TrainJob, last: Path) -> None:
    """Hand the checkpoints that the policy asks for to tracking: the model without the optimizer."""
    checkpoints = job.checkpoints.folder
    saved = list_saved(checkpoints)
    best = ranked(saved, validation_metric(job.config))[:1]
    chosen = {
        "all": [checkpoints / one.name for one in saved],
        "best": [checkpoints / one.name for one in best] or [last],
        "last": [last],
        "none": [],
    }
    for folder in chosen[job.machine.track_checkpoints]:
        for file in (MODEL, SETTINGS, CONFIG):
            job.journal.artifact(folder / file, folder=f"checkpoints/{folder.name}")


def _journal_inputs(config: RunConfig, shards: ShardSet, output: Path, journal: Journal) -> None:
    """What the run is made of: its settings, its data, and a picture of what its mask hides."""
    write_settings(output, config)
    journal.artifact(output / CONFIG)
    journal.dataset(
        name=config.data.shards.name,
        digest=shards.digest,
        source=str(config.data.shards.absolute()),
        context="training",
        profile=shards.profile,
    )
    preview_masks(config, shards, {config.name: config.mask}).save(output / "masks.png")
    journal.artifact(output / "masks.png", folder="pictures")
