"""A checkpoint and evaluation sets to metrics, as a Ray task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model
from pipelines.compute.cluster import connect
from pipelines.config.errors import ConfigError, UserError
from pipelines.config.identity import file_digest, fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import absolute_paths
from pipelines.evaluation.measure import draw_reconstructions, measure
from pipelines.tracking.journal import Journal
from vlp.core.config import StrictConfig
from vlp.evaluation.config import EvaluationConfig
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.local import LocalFolder


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StrictConfig):
    """Which model is measured on what."""

    checkpoint: Path
    """Folder of a checkpoint, or of a run, whose last one is taken."""
    evaluation: EvaluationConfig
    """What it is measured on."""


def evaluate(
    config: EvaluateConfig, output: Path, *, machine: MachineConfig, journal: Journal
) -> dict[str, Any]:
    """Measure a checkpoint away from training; writes and returns the metrics."""
    checkpoint = find_checkpoint(config.checkpoint)
    check_evaluation(config.evaluation)
    connect(machine, min_cpus=1, min_gpus=int(machine.use_gpu))
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(num_cpus=1, num_gpus=int(machine.use_gpu))(measure_checkpoint)
    print(f"[evaluate] measuring {checkpoint}", flush=True)
    try:
        measured = ray.get(task.remote(checkpoint.absolute(), absolute_paths(config.evaluation)))
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    metrics, step, rebuilt = measured
    journal.metrics({f"val/{key}": value for key, value in metrics.items()}, step=step)
    for name, files in set_files(config.evaluation).items():
        digest, source = file_digest(files), str(files[0].absolute())
        journal.dataset(
            name=name, digest=digest, source=source, context="evaluation", profile={"sha256": digest}
        )
    manifest = {"digest": fingerprint(metrics), "step": step, "metrics": metrics}
    output.mkdir(parents=True, exist_ok=True)
    LocalFolder(output).write_json(MANIFEST, manifest)
    journal.artifact(output / MANIFEST, folder="evaluation")
    if rebuilt is not None:
        rebuilt.save(output / "reconstructions.png")
        journal.artifact(output / "reconstructions.png", folder="pictures")
    return manifest


def set_files(evaluation: EvaluationConfig) -> dict[str, list[Path]]:
    """Every file that an evaluation reads, by its set."""
    pairs = {f"retrieval.{name}": [file] for name, file in evaluation.retrieval.items()}
    labelled = {
        f"classification.{name}": [folder / part for part in ("train.parquet", "test.parquet", "meta.json")]
        for name, folder in evaluation.classification.items()
    }
    return pairs | labelled


def evaluation_identity(evaluation: EvaluationConfig) -> dict[str, Any]:
    """What decides the result of an evaluation: the content of its files, and its settings."""
    return {
        "files": {name: file_digest(files) for name, files in set_files(evaluation).items()},
        "num_neighbours": evaluation.num_neighbours,
        "shots": evaluation.shots,
    }


def check_evaluation(evaluation: EvaluationConfig) -> None:
    """Find missing files and columns before any work starts."""
    for name, files in set_files(evaluation).items():
        for file in files:
            if not file.is_file():
                raise ConfigError(f"evaluation.{name}: no such file: {file}")
            if file.suffix != ".json":
                _check_columns(name, file, "captions" if name.startswith("retrieval") else "label")


def _check_columns(name: str, file: Path, column: str) -> None:
    try:
        names = pq.read_schema(file).names
    except pa.ArrowInvalid as error:
        raise ConfigError(f"evaluation.{name}: {file} is no Parquet file") from error
    if not {"image", column} <= set(names):
        raise ConfigError(f"evaluation.{name}: {file} lacks the columns image and {column}")


class Measured(NamedTuple):
    """What a checkpoint's evaluation gives."""

    metrics: dict[str, float]
    """By `set/metric`."""
    step: int
    """The checkpoint's."""
    rebuilt: Image.Image | None
    """What the model rebuilds of some hidden patches, if that is its objective."""


def measure_checkpoint(checkpoint: Path, evaluation: EvaluationConfig) -> Measured:
    """What a Ray task does: load a checkpoint, measure it and look at it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective, run = load_model(checkpoint, device)
    step = torch.load(checkpoint / "training.pt", map_location="cpu", weights_only=True, mmap=True)["step"]
    metrics = measure(objective, run, evaluation)
    progress = min(1.0, max(0, step - 1) / max(1, run.num_masked_steps))
    return Measured(metrics, step, draw_reconstructions(objective, run, evaluation, progress=progress))
