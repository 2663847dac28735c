"""A checkpoint and evaluation sets to metrics, as a Ray task."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipelines.checkpoint import MODEL, load_model
from pipelines.cluster import connect
from pipelines.config import MachineConfig, absolute_paths, fingerprint
from pipelines.config_errors import ConfigError
from pipelines.ingest.shard import write_json
from pipelines.ingest.url_list import file_digest
from pipelines.journal import Journal
from pipelines.run_config import EvaluationConfig, RunConfig
from vlp.config import StrictConfig
from vlp.data.loader import load_images
from vlp.data.shards import MANIFEST, LabelledImages, read_images
from vlp.evaluation.knn import knn_metrics
from vlp.evaluation.retrieval import retrieval_metrics
from vlp.evaluation.zero_shot import class_embeddings, zero_shot_metrics
from vlp.objectives import Objective
from vlp.objectives.contrastive import Contrastive

BATCH_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StrictConfig):
    """Which model is measured on what."""

    checkpoint: Path
    """Folder of a checkpoint, or of a run, whose last one is taken."""
    evaluation: EvaluationConfig


def evaluate(
    config: EvaluateConfig, output: Path, *, machine: MachineConfig, journal: Journal
) -> dict[str, Any]:
    """Measure a checkpoint away from training; writes and returns the metrics."""
    checkpoint = find_checkpoint(config.checkpoint)
    check_evaluation(config.evaluation)
    connect(machine, min_cpus=1)
    import ray

    task = ray.remote(num_cpus=1, num_gpus=int(machine.use_gpu))(measure_checkpoint)
    print(f"[evaluate] measuring {checkpoint}", flush=True)
    metrics, step = ray.get(task.remote(checkpoint.absolute(), absolute_paths(config.evaluation)))
    journal.metrics({f"val/{key}": value for key, value in metrics.items()}, step=step)
    for file in evaluation_files(config.evaluation):
        digest = file_digest([file])
        source = str(file.absolute())
        journal.dataset(
            name=file.name, digest=digest, source=source, context="evaluation", profile={"sha256": digest}
        )
    manifest = {"digest": fingerprint(metrics), "step": step, "metrics": metrics}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / MANIFEST, manifest)
    journal.artifact(output / MANIFEST, folder="evaluation")
    return manifest


def find_checkpoint(folder: Path) -> Path:
    """The folder itself if it is a checkpoint, or the last checkpoint of a finished run.

    Raises:
        ConfigError: it is neither.
    """
    manifest = folder / MANIFEST
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    checkpoint = folder / content.get("checkpoint", "")
    if not (checkpoint / MODEL).is_file():
        raise ConfigError(f"checkpoint: {folder} is neither a checkpoint nor a finished run: no {MODEL}")
    return checkpoint


def evaluation_files(evaluation: EvaluationConfig) -> list[Path]:
    """Every file that an evaluation reads."""
    files = [evaluation.retrieval] if evaluation.retrieval else []
    if folder := evaluation.classification:
        files += [folder / name for name in ("train.parquet", "test.parquet", "meta.json")]
    return files


def evaluation_identity(evaluation: EvaluationConfig) -> dict[str, Any]:
    """What decides the result of an evaluation: the content of its files, and its settings."""
    return {
        "files": {file.name: file_digest([file]) for file in evaluation_files(evaluation)},
        "num_neighbours": evaluation.num_neighbours,
    }


def check_evaluation(evaluation: EvaluationConfig) -> None:
    """Find missing files and columns before any work starts."""
    for file in evaluation_files(evaluation):
        if not file.is_file():
            raise ConfigError(f"evaluation: no such file: {file}")
        if file.suffix != ".json":
            _check_columns(file, "captions" if file == evaluation.retrieval else "label")


def _check_columns(file: Path, column: str) -> None:
    try:
        names = pq.read_schema(file).names
    except pa.ArrowInvalid as error:
        raise ConfigError(f"evaluation: {file} is no Parquet file") from error
    if not {"image", column} <= set(names):
        raise ConfigError(f"evaluation: {file} lacks the columns image and {column}")


def measure_checkpoint(checkpoint: Path, evaluation: EvaluationConfig) -> tuple[dict[str, float], int]:
    """What a Ray task does: load a checkpoint and measure it; also the step it was saved at."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective, run = load_model(checkpoint, device)
    step = torch.load(checkpoint / "training.pt", map_location="cpu", weights_only=True, mmap=True)["step"]
    return measure(objective, run, evaluation), step


@torch.inference_mode()
def measure(objective: Objective, run: RunConfig, evaluation: EvaluationConfig) -> dict[str, float]:
    """Every metric that the objective allows and the evaluation sets are given for."""
    objective.eval()
    metrics = {}
    if evaluation.retrieval and isinstance(objective, Contrastive):
        metrics |= _measure_retrieval(objective, run, evaluation.retrieval)
    if evaluation.classification:
        metrics |= _measure_classification(
            objective, run, evaluation.classification, evaluation.num_neighbours
        )
    objective.train()
    return metrics


def _measure_retrieval(objective: Contrastive, run: RunConfig, file: Path) -> dict[str, float]:
    data = read_images(file, "captions")
    captions = [caption for captions in data.labels for caption in captions]
    image_of_text = torch.tensor([i for i, captions in enumerate(data.labels) for _ in captions])
    return retrieval_metrics(
        _embed_images(objective, objective.encode_image, data, run),
        _embed_texts(objective, run, captions),
        image_of_text,
    )


def _measure_classification(
    objective: Objective, run: RunConfig, folder: Path, num_neighbours: int
) -> dict[str, float]:
    train, test = (read_images(folder / f"{split}.parquet", "label") for split in ("train", "test"))
    meta = json.loads((folder / "meta.json").read_text())
    train_labels, test_labels = torch.tensor(train.labels), torch.tensor(test.labels)
    metrics = knn_metrics(
        _embed_images(objective, objective.features, train, run),
        train_labels,
        _embed_images(objective, objective.features, test, run),
        test_labels,
        k=num_neighbours,
        num_classes=len(meta["classes"]),
    )
    if isinstance(objective, Contrastive):
        templates = meta.get("templates", ["a photo of a {}."])
        classes = class_embeddings(
            lambda texts: _embed_texts(objective, run, texts), meta["classes"], templates
        )
        images = _embed_images(objective, objective.encode_image, test, run)
        metrics |= zero_shot_metrics(images, test_labels, classes)
    return metrics


def _embed_images(
    objective: Objective, encode: Callable[[Tensor], Tensor], data: LabelledImages, run: RunConfig
) -> Tensor:
    device = next(objective.parameters()).device
    batches = (
        load_images(
            data.images[start : start + BATCH_SIZE],
            image_size=run.image_encoder.image_size,
            normalization=run.data.normalization,
        )
        for start in range(0, len(data.images), BATCH_SIZE)
    )
    return torch.cat([encode(images.to(device)).cpu() for images in batches])


def _embed_texts(objective: Contrastive, run: RunConfig, texts: Sequence[str]) -> Tensor:
    device = next(objective.parameters()).device
    tokenizer = run.tokenizer.build()
    batches = (
        tokenizer.encode(texts[start : start + BATCH_SIZE]) for start in range(0, len(texts), BATCH_SIZE)
    )
    return torch.cat(
        [objective.encode_text(tokens.to(device), lengths.to(device)).cpu() for tokens, lengths in batches]
    )
