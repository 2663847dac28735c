"""Ray Train: shards to a trained model, with every objective and mask."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pipelines.calibration import calibrate_mask, recalibration_steps
from pipelines.checkpoint import CONFIG, MODEL
from pipelines.checkpoint_mirror import restore, run_mirror
from pipelines.checkpoint_store import list_saved, newest_whole, ranked
from pipelines.cluster import connect_for_training
from pipelines.config import absolute_paths, to_dict
from pipelines.journal import Journal
from pipelines.machine_config import MachineConfig
from pipelines.mask_preview import preview_masks
from pipelines.run_checks import check_run
from pipelines.run_config import RunConfig, validation_metric
from pipelines.run_identity import claim
from pipelines.train_job import CHECKPOINTS, TrainJob
from vlp.data.folder import LocalFolder
from vlp.data.shards import MANIFEST, ShardSet


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
    output = output.absolute()
    claim(config, output)
    mirror = run_mirror(config, machine)
    if mirror is not None:
        claim(config, mirror)
        restore(output / CHECKPOINTS, mirror, config.name)
    newest_whole(output / CHECKPOINTS, config.name)
    searched = recalibration_steps(config)
    config = calibrate_mask(config, shards, output, journal)
    _journal_inputs(config, shards, output, journal)
    connect_for_training(machine)
    job = TrainJob(absolute_paths(config), machine, output, journal, searched, mirror)
    checkpoint = _fit(job, callbacks)
    manifest = {
        "digest": weights_digest(checkpoint),
        "checkpoint": str(checkpoint.relative_to(output)),
        "steps": config.num_steps,
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


def _fit(job: TrainJob, callbacks: Sequence[Any]) -> Path:
    """Run the workers to the end; returns the folder of the last checkpoint."""
    from ray.train import FailureConfig, LoggingConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    from pipelines.train_callbacks import AnnounceFailures
    from pipelines.train_loop import train_worker

    logging.getLogger("ray.train").setLevel(logging.ERROR)  # the driver's; `logging_config` is the workers'
    machine, counts = job.machine, job.machine.worker_counts
    resources = {"CPU": machine.cpus_per_worker} | ({"GPU": 1} if machine.use_gpu else {})
    TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=(counts.least, counts.most) if counts.is_elastic else counts.least,
            use_gpu=machine.use_gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=machine.resize_seconds,
        ),
        run_config=RayRunConfig(
            name=CHECKPOINTS,
            storage_path=str(job.output),
            failure_config=FailureConfig(max_failures=machine.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
            callbacks=[AnnounceFailures(job.config.name), *callbacks],
        ),
    ).fit()
    last = job.checkpoints / list_saved(job.checkpoints)[-1].name
    _journal_checkpoints(job, last)
    return last


def _journal_checkpoints(job: TrainJob, last: Path) -> None:
    """Hand the checkpoints that the policy asks for to tracking: the model without the optimizer."""
    saved = list_saved(job.checkpoints)
    best = ranked(saved, validation_metric(job.config))[:1]
    chosen = {
        "all": [job.checkpoints / one.name for one in saved],
        "best": [job.checkpoints / one.name for one in best] or [last],
        "last": [last],
        "none": [],
    }
    for folder in chosen[job.machine.track_checkpoints]:
        for file in (MODEL, CONFIG):
            job.journal.artifact(folder / file, folder=f"checkpoints/{folder.name}")


def _journal_inputs(config: RunConfig, shards: ShardSet, output: Path, journal: Journal) -> None:
    """What the run is made of: its settings, its data, and a picture of what its mask hides."""
    (output / CONFIG).write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
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
