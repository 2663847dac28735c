"""Ray Train: shards to a trained model, with every objective and mask."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pipelines.calibration import calibrate_mask, recalibration_steps
from pipelines.checkpoint import CONFIG, MODEL
from pipelines.cluster import connect
from pipelines.codes import check_codes, codes_digest
from pipelines.config import MachineConfig, absolute_paths, fingerprint, to_dict
from pipelines.config_errors import ConfigError
from pipelines.evaluate import check_evaluation
from pipelines.ingest.shard import write_json
from pipelines.journal import Journal
from pipelines.mask_preview import preview_masks
from pipelines.remote_shards import check_cache
from pipelines.run_config import RunConfig, build_tokenizer
from pipelines.train_job import CHECKPOINTS, TrainJob
from vlp.data.document_frequency import DocumentFrequency
from vlp.data.loader import data_order, open_shards
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
    _claim(config, output)
    searched = recalibration_steps(config)
    config = calibrate_mask(config, shards, output, journal)
    _journal_inputs(config, shards, output, journal)
    connect_for_training(machine)
    job = TrainJob(absolute_paths(config), machine, output, journal, searched)
    checkpoint = _fit(job, callbacks)
    manifest = {
        "digest": weights_digest(checkpoint),
        "checkpoint": str(checkpoint.relative_to(output)),
        "steps": config.num_steps,
    }
    write_json(output / MANIFEST, manifest)
    return manifest


def _claim(config: RunConfig, output: Path) -> None:
    """Make a folder this run's own; a ConfigError if it is another's, whose checkpoints it would take."""
    file, identity = output / "identity.json", run_identity(config)
    if file.is_file() and json.loads(file.read_text())["identity"] != identity:
        raise ConfigError(f"{output} holds a run with other settings or data; choose another output folder")
    output.mkdir(parents=True, exist_ok=True)
    write_json(file, {"identity": identity})


def run_identity(config: RunConfig) -> str:
    """Identity of a run's result: its settings, with the content of its inputs in place of their paths."""
    settings = to_dict(config)
    settings["tokenizer"] = config.tokenizer.build().identity
    settings["data"]["shards"] = ShardSet(*config.data.folders).digest
    settings["data"]["mix"] = config.data.shares
    if table := config.data.document_frequency:
        settings["data"]["document_frequency"] = hashlib.sha256(table.read_bytes()).hexdigest()
    if codes := codes_digest(config):
        settings["objective"]["target"]["codes"] = codes
    del settings["evaluation"]  # measures the result, does not change it
    for key in ("action", "max_in_a_row", "num_saved"):  # whether there is a result, not which
        del settings["training"]["on_bad_step"][key]
    return fingerprint(settings)


def check_run(config: RunConfig, machine: MachineConfig) -> ShardSet:
    """Find what would stop a run, before any worker starts; returns its data."""
    build_tokenizer(config.tokenizer, "tokenizer")
    try:
        shards = open_shards(config.data)
        _check_document_frequency(config)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    batch_size, num_workers = config.training.batch_size, max(1, machine.num_workers)
    if len(shards) < batch_size:
        raise ConfigError(
            f"training.batch_size is {batch_size} and {config.data.shards} holds {len(shards)} samples: "
            "fewer than one batch; lower training.batch_size"
        )
    if batch_size % num_workers:
        raise ConfigError(
            f"training.batch_size {batch_size} is not a multiple of machine.num_workers {num_workers}"
        )
    check_codes(config)
    try:
        data_order(shards, config.data, seed=config.seed, batch_size=batch_size)
    except ValueError as error:
        raise ConfigError(f"data.mix: {error}") from error
    check_evaluation(config.evaluation)
    check_cache(config.data, shards, machine.cache)
    return shards


def _check_document_frequency(config: RunConfig) -> None:
    table = config.data.document_frequency
    if getattr(config.objective, "idf", None) == "offline" and table is None:
        raise ValueError("objective.idf is offline: set data.document_frequency, made with `vlp docfreq`")
    if table is not None:
        counted, used = DocumentFrequency.read(table).tokenizer, config.tokenizer.build().identity
        if counted != used:
            raise ValueError(
                f"{table} counts the tokens of another tokenizer, or another context length "
                f"({counted}, the run's is {used})"
            )


def connect_for_training(machine: MachineConfig) -> None:
    """Join a cluster that has room for all training workers; nothing in a process without Ray."""
    if machine.num_workers:
        connect(machine, min_cpus=machine.num_workers * machine.cpus_per_worker)


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of every weight and buffer."""
    digest = hashlib.sha256()
    weights = torch.load(checkpoint / MODEL, map_location="cpu", weights_only=True)
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def validation_metric(config: RunConfig) -> str | None:
    """The metric by which checkpoints are compared, of the first set; None where none is measured."""
    if config.evaluation.every_steps is None:
        return None
    pairs, labelled = config.evaluation.retrieval, config.evaluation.classification
    if pairs and config.objective.name == "contrastive":
        return f"val/{next(iter(pairs))}/text_to_image/recall@1"
    return f"val/{next(iter(labelled))}/knn/acc1" if labelled else None


def _fit(job: TrainJob, callbacks: Sequence[Any]) -> Path:
    """Run the workers to the end; returns the folder of the last checkpoint."""
    from ray.train import FailureConfig, LoggingConfig, Result, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    from pipelines.train_callbacks import AnnounceFailures
    from pipelines.train_loop import train_worker

    machine = job.machine
    resources = {"CPU": machine.cpus_per_worker} | ({"GPU": 1} if machine.use_gpu else {})
    result: Result = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=machine.num_workers, use_gpu=machine.use_gpu, resources_per_worker=resources
        ),
        run_config=RayRunConfig(
            name=CHECKPOINTS,
            storage_path=str(job.output),
            failure_config=FailureConfig(max_failures=machine.max_failures),
            checkpoint_config=_checkpoint_config(job),
            logging_config=LoggingConfig(log_level="ERROR"),
            callbacks=[AnnounceFailures(job.config.name), *callbacks],
        ),
    ).fit()
    assert result.checkpoint is not None
    _journal_checkpoints(job, result)
    return Path(result.checkpoint.path)


def _checkpoint_config(job: TrainJob) -> Any:
    from ray.train import CheckpointConfig

    machine = job.machine
    if machine.track_checkpoints == "all":
        return CheckpointConfig()
    metric = validation_metric(job.config) if machine.track_checkpoints == "best" else None
    return CheckpointConfig(num_to_keep=machine.keep_checkpoints, checkpoint_score_attribute=metric)


def _journal_checkpoints(job: TrainJob, result: Any) -> None:
    """Hand the checkpoints that the policy asks for to tracking: the model without the optimizer."""
    kept = [checkpoint for checkpoint, _ in result.best_checkpoints or []]
    metric, policy = validation_metric(job.config), job.machine.track_checkpoints
    if policy == "none":
        return
    if policy == "all":
        chosen = kept
    elif policy == "best" and metric and kept:
        chosen = [result.get_best_checkpoint(metric, "max")]
    else:
        chosen = [result.checkpoint]
    for checkpoint in chosen:
        folder = Path(checkpoint.path)
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
