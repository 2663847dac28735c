"""A checkpoint as a model that MLflow loads: rows of images and texts in, embeddings out.

MLflow finds `_load_pyfunc` by its name; nothing here imports MLflow.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlp.checkpoint import MODEL
from vlp.model import Model, load

IMAGE, TEXT = "image", "text"
"""Columns of what is asked: encoded bytes of images, and texts. A table may have one of them, or both."""


class Served:
    """What is asked as a table, answered by a list with one mapping per row."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> list[dict[str, list[float]]]:
        """Embeddings of each row's image and text, as `image_embedding` and `text_embedding`.

        Of an objective that learns no space for both, the image's are its frozen features.

        Raises:
            TypeError: there are texts, and the objective has no text encoder.
        """
        answers = {}
        if IMAGE in rows:
            answers["image_embedding"] = self._images(list(rows[IMAGE]))
        if TEXT in rows:
            tokens, lengths = self.model.tokenize([str(text) for text in rows[TEXT]])
            answers["text_embedding"] = self.model.encode_text(tokens, lengths)
        columns = {name: values.tolist() for name, values in answers.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _images(self, images: Sequence[bytes]) -> Tensor:
        pixels = torch.stack([self.model.preprocess(image) for image in images])
        in_space = self.model.config.objective.encodes_text
        return self.model.encode_image(pixels) if in_space else self.model.features(pixels)


def _load_pyfunc(path: str) -> Served:
    """The model of a checkpoint that lies below a folder."""
    (weights,) = Path(path).rglob(MODEL)
    return Served(load(weights.parent))
