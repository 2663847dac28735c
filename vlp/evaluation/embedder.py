"""What protocols ask of a trained model: images and texts to vectors."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vlp.core.normalization import Normalization
from vlp.data.image_tables import ImageTable
from vlp.data.loader import load_images
from vlp.metrics.outcomes import NoOutcomesError
from vlp.objectives import Objective
from vlp.tokenizers import Tokenizer

BATCH_SIZE = 128


class Embedder:
    """Encodes whole images and texts, batch by batch; features of a table are computed once.

    What it gives is finite: a model that gives anything else is refused, by a NoOutcomesError.
    """

    def __init__(
        self, objective: Objective, tokenizer: Tokenizer, *, image_size: int, normalization: Normalization
    ) -> None:
        self.objective, self.tokenizer = objective, tokenizer
        self.image_size = image_size
        self.normalization: Normalization = normalization
        self._features: dict[ImageTable, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """The model's."""
        return next(self.objective.parameters()).device

    def load(self, images: Sequence[bytes]) -> Tensor:
        """Encoded images as the model takes them, on its device: (B, 3, H, W)."""
        loaded = load_images(images, image_size=self.image_size, normalization=self.normalization)
        return loaded.to(self.device)

    def features(self, table: ImageTable) -> Tensor:
        """What frozen-feature protocols read of every image: (I, D), on the CPU."""
        if table not in self._features:
            self._features[table] = self._encode(self.objective.features, table)
        return self._features[table]

    def embed_images(self, table: ImageTable) -> Tensor:
        """Unit-length embeddings of every image: (I, E), on the CPU."""
        return self._encode(self.objective.encode_image, table)

    def features_of_changed(self, table: ImageTable, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The same of images that are changed first, (B, 3, H, W) twice: (I, D), on the CPU."""
        return self._encode(lambda images: self.objective.features(change(images)), table)

    @torch.no_grad()
    def patch_states(self, table: ImageTable, rows: Tensor) -> Iterator[Tensor]:
        """States of the patches of some images, a batch of images at a time: (B, N, D) each, on the CPU.

        Args:
            rows: (Q,) int64, places of the images in the table.
        """
        images = table.images()
        for part in rows.split(BATCH_SIZE):
            states = self.objective.patch_states(self.load([images[row] for row in part.tolist()])).cpu()
            _finite(states.flatten(1), f"images of {table.file}")
            yield states

    # Not in inference mode: a protocol that trains differentiates functions of what it is given.
    @torch.no_grad()
    def project(self, features: Tensor) -> Tensor:
        """Unit-length embeddings of images whose features are known: (I, D) -> (I, E), on the CPU."""
        return _finite(self.objective.project(features.to(self.device)).cpu(), "images")

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-length embeddings of texts: (C, E), on the CPU."""
        parts = (texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE))
        batches = ([x.to(self.device) for x in self.tokenizer.encode(part)] for part in parts)
        return _finite(torch.cat([self.objective.encode_text(*batch).cpu() for batch in batches]), "texts")

    @torch.no_grad()
    def _encode(self, encode: Callable[[Tensor], Tensor], table: ImageTable) -> Tensor:
        images = table.images()
        parts = (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))
        return _finite(
            torch.cat([encode(self.load(part)).cpu() for part in parts]), f"images of {table.file}"
        )


def _finite(vectors: Tensor, what: str) -> Tensor:
    num_broken = int((~vectors.isfinite().all(dim=1)).sum())
    if num_broken:
        raise NoOutcomesError(
            f"its features of {num_broken} of {len(vectors)} {what} are not finite; "
            "measure an earlier checkpoint"
        )
    return vectors
