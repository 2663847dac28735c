"""A model and evaluation sets to metrics and pictures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vlp.data.image_tables import LabelledImages, read_images
from vlp.data.loader import load_images
from vlp.evaluation.config import EvaluationConfig
from vlp.metrics.few_shot import few_shot_metrics
from vlp.metrics.knn import knn_metrics
from vlp.metrics.retrieval import retrieval_metrics
from vlp.metrics.zero_shot import class_embeddings, zero_shot_metrics
from vlp.objectives import Objective
from vlp.objectives.contrastive import Contrastive
from vlp.pictures.reconstructions import reconstructions
from vlp.run import RunConfig

BATCH_SIZE = 128
PICTURES = 6


@torch.inference_mode()
def measure(objective: Objective, run: RunConfig, evaluation: EvaluationConfig) -> dict[str, float]:
    """Every metric that the objective allows and sets are given for, by `set/metric`."""
    objective.eval()
    metrics = {}
    if isinstance(objective, Contrastive):
        for name, file in evaluation.retrieval.items():
            metrics |= _of(name, _measure_retrieval(objective, run, file))
    for name, folder in evaluation.classification.items():
        metrics |= _of(name, _measure_classification(objective, run, folder, evaluation))
    objective.train()
    return metrics


@torch.inference_mode()
def draw_reconstructions(
    objective: Objective, run: RunConfig, evaluation: EvaluationConfig, *, progress: float
) -> Image.Image | None:
    """What the objective rebuilds of the first images of the first set; None if it rebuilds no pictures."""
    pairs = [(file, "captions") for file in evaluation.retrieval.values()]
    labelled = [(folder / "test.parquet", "label") for folder in evaluation.classification.values()]
    if not run.objective.rebuilds_patches or not pairs + labelled:
        return None
    device, size = next(objective.parameters()).device, run.image_encoder.image_size
    images = load_images(
        read_images(*(pairs + labelled)[0]).images[:PICTURES],
        image_size=size,
        normalization=run.data.normalization,
    )
    return reconstructions(
        objective.eval(),
        images.to(device),
        normalization=run.data.normalization,
        progress=progress,
        generator=torch.Generator(device).manual_seed(run.seed),
        image_scale=max(1, 128 // size),
    )


def _of(name: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{name}/{key}": value for key, value in metrics.items()}


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
    objective: Objective, run: RunConfig, folder: Path, evaluation: EvaluationConfig
) -> dict[str, float]:
    train, test = (read_images(folder / f"{split}.parquet", "label") for split in ("train", "test"))
    meta = json.loads((folder / "meta.json").read_text())
    num_classes = len(meta["classes"])
    labelled, unseen = (
        (_embed_images(objective, objective.features, data, run), torch.tensor(data.labels))
        for data in (train, test)
    )
    metrics = knn_metrics(*labelled, *unseen, k=evaluation.num_neighbours, num_classes=num_classes)
    for shots in evaluation.shots:
        metrics |= few_shot_metrics(*labelled, *unseen, shots=shots, num_classes=num_classes)
    if isinstance(objective, Contrastive):
        templates = meta.get("templates", ["a photo of a {}."])
        classes = class_embeddings(
            lambda texts: _embed_texts(objective, run, texts), meta["classes"], templates
        )
        features, labels = unseen
        images = objective.project(features.to(classes.device))
        metrics |= zero_shot_metrics(images, labels, classes)
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
