"""Ray Train: shards to a trained model, with every objective and mask."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipelines.checkpoints.checkpoint import CONFIG, write_settings
from pipelines.checkpoints.mirror import restore
from pipelines.checkpoints.store import RunManifest, list_saved, newest_whole, ranked
from pipelines.compute.cluster import connect_for_training, ray_tags
from pipelines.config.machine import MachineConfig, machine_params
from pipelines.tracking.journal import Journal
from pipelines.training.calibration import at_known_share, calibrated, with_mask_of_start
from pipelines.training.claim import claim
from pipelines.training.job import WHOLE, Part, TrainJob
from pipelines.training.mask_preview import preview_masks
from pipelines.training.matmul import chosen_matmul
from pipelines.training.pace import at_known_pace
from pipelines.training.resolved import ResolvedRun
from pipelines.training.workers import run_workers
from vlp.checkpoint import MODEL, SETTINGS, load_weights
from vlp.run import validation_metric
from vlp.shards.index_schema import INDEX_SCHEMA
from vlp.shards.manifest import MANIFEST


def pretrain(
    run: ResolvedRun,
    output: Path,
    *,
    machine: MachineConfig,
    journal: Journal,
    part: Part = WHOLE,
    callbacks: Sequence[Any] = (),
) -> RunManifest:
    """Train one run, or go on where it was; writes and returns its manifest.

    Args:
        run: resolved for this machine.
        part: how much of it, for now.
        callbacks: of Ray Train, that hear every report.

    Raises:
        ConfigError: the run cannot work; found before any worker starts.
        StoppedError: its stop file ended it before its last step.
    """
    there = machine.published(output)
    machine = replace(machine, cache=machine.shard_cache)  # workers work in folders of their own
    job = TrainJob(
        run, machine, output.absolute(), journal, there, machine.published(journal.folder), part=part
    )
    newest = _take_over(job)
    _say_what_it_starts_from(job, newest)
    job = replace(job, run=at_known_share(calibrated(with_mask_of_start(run), job.output, journal), newest))
    job = replace(job, matmul=chosen_matmul(job, newest or run.start))
    connect_for_training(machine)
    job = replace(job, run=at_known_pace(job, newest))
    steps = run.config.mask.recalibration_steps(job.config.num_masked_steps)
    job = replace(job, recalibration_steps=steps)
    _journal_inputs(job)
    checkpoint = run_workers(replace(job, run=job.run.without_model()), callbacks)
    _journal_checkpoints(job, checkpoint)
    manifest = RunManifest(
        digest=weights_digest(checkpoint),
        checkpoint=str(checkpoint.relative_to(job.output)),
        steps=job.last_step,
    )
    manifest.write(job.output)
    return manifest


def _say_what_it_starts_from(job: TrainJob, newest: Path | None) -> None:
    """Weights that are drawn at random are what a user forgets where a trained encoder is to be tuned."""
    starts_anew = newest is None and job.run.start is None and job.config.init_from is None
    if starts_anew and job.config.objective.tells_classes:
        print(f"[{job.label}] init_from names no weights: the image encoder learns from scratch", flush=True)


def _take_over(job: TrainJob) -> Path | None:
    """Make the folder the run's own; the checkpoint that it goes on from, None where it starts."""
    claim(job.run, job.output)
    place = job.checkpoints
    if job.there and place.mirror:
        claim(job.run, job.there)
        restore(place.folder, place.mirror, label=place.label)
    return newest_whole(place.folder, label=place.label)


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of every weight and buffer."""
    digest = hashlib.sha256()
    weights = load_weights(checkpoint / MODEL, torch.device("cpu"))
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
    found = {one.name: one for one in saved}
    for folder in chosen[job.machine.checkpoints.track]:
        one, files = found[folder.name], (MODEL, SETTINGS, CONFIG, MANIFEST)
        job.journal.model(folder, files=files, step=one.step, texts=job.config.objective.encodes_text)
        job.journal.model_metrics(one.metrics, step=one.step)


def _method_tags(job: TrainJob) -> dict[str, str]:
    """What tells methods apart in a table of runs."""
    config = job.config
    return {
        "method": config.name,
        "objective": config.objective.name,
        "mask": config.mask.name,
        "encoder": config.image_encoder.label,
        "dataset": config.data.shards.name,
        "tokenizer": config.tokenizer.name,
        "identity": job.run.identity,
        **({"parent": _name_of(job.run.start)} if job.run.start else {}),
        "mlflow.runType": "evaluation",  # MLflow unfolds a run in whose nested ones models are measured
    }


def _name_of(checkpoint: Path) -> str:
    """Run and step of a checkpoint, by its folders: RUN/checkpoints/step_0000100."""
    return f"{checkpoint.parent.parent.name}/{checkpoint.name}"


def _journal_inputs(job: TrainJob) -> None:
    """What the run is made of: its settings, its data, and a picture of what its mask hides."""
    config, shards, journal = job.config, job.run.shards, job.journal
    journal.tags(_method_tags(job) | ray_tags())
    journal.params(machine_params(job.machine))
    write_settings(job.output, config)
    journal.artifact(job.output / CONFIG)
    journal.dataset(
        name=config.data.shards.name,
        digest=shards.digest,
        source=str(config.data.shards.absolute()),
        context="training",
        profile=shards.profile,
        columns={field.name: str(field.type) for field in INDEX_SCHEMA},
    )
    preview_masks(job.run, {config.name: config.mask}).save(job.output / "masks.png")
    journal.artifact(job.output / "masks.png", folder="pictures")
