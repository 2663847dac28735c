"""What protocols ask of a trained model: images and texts to vectors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vlp.core.normalization import Normalization
from vlp.data.image_tables import ImageTable, Part
from vlp.data.loader import load_images
from vlp.evaluation.feature_store import Block, FeatureStore
from vlp.metrics.outcomes import NoOutcomesError
from vlp.objectives import Objective
from vlp.tokenizers import Tokenizer

BATCH_SIZE = 128
ROWS_PER_BLOCK = 8192


class Embedder:
    """Encodes whole images and texts, batch by batch; each once, as far as the store holds what it gave.

    What it gives is finite: a model that gives anything else is refused, by a NoOutcomesError.

    Args:
        store: of this model, on images of this size and normalization; None for one of its own.
    """

    def __init__(
        self,
        objective: Objective,
        tokenizer: Tokenizer,
        *,
        image_size: int,
        normalization: Normalization,
        store: FeatureStore | None = None,
    ) -> None:
        self.objective, self.tokenizer = objective, tokenizer
        self.image_size = image_size
        self.normalization: Normalization = normalization
        self.store = store or FeatureStore.temporary()
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
        """What frozen-feature protocols read of every image: (I, D), on a disk, so of any size."""
        if table not in self._features:
            self._features[table] = self.store.matrix([self._block(part) for part in table.parts()])
        return self._features[table]

    def fill(self, part: Part) -> None:
        """Have the store hold the features of some images."""
        self.store.fill([self._block(part)])

    def embed_images(self, table: ImageTable) -> Tensor:
        """Unit-length embeddings of every image: (I, E), on the CPU."""
        return self.project(self.features(table))

    def features_of_changed(self, table: ImageTable, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The same of images that are changed first, (B, 3, H, W) twice: (I, D), on the CPU."""
        return self._encode(lambda images: self.objective.features(change(images)), table)

    @torch.no_grad()
    def patch_states(self, table: ImageTable, rows: Tensor) -> Iterator[Tensor]:
        """States of the patches of some images, a batch of images at a time: (B, N, D) each, on the CPU.

        Args:
            rows: (Q,) int64, places of the images in the table, ascending.
        """
        for batch in _batches(table.images_at(rows.tolist()), BATCH_SIZE):
            states = self.objective.patch_states(self.load(batch)).cpu()
            _finite(states.flatten(1), f"images of {table.place}")
            yield states

    # Not in inference mode: a protocol that trains differentiates functions of what it is given.
    @torch.no_grad()
    def project(self, features: Tensor) -> Tensor:
        """Unit-length embeddings of images whose features are known: (I, D) -> (I, E), on the CPU."""
        parts = features.split(ROWS_PER_BLOCK)
        embedded = [self.objective.project(part.to(self.device)).cpu() for part in parts]
        return _finite(torch.cat(embedded), "images")

    @torch.no_grad()
    def classify(self, features: Tensor) -> Tensor:
        """Logits of the model's own classes, of images whose features are known: (I, D) -> (I, K)."""
        parts = features.split(ROWS_PER_BLOCK)
        logits = [self.objective.classify(part.to(self.device)).float().cpu() for part in parts]
        return _finite(torch.cat(logits), "images")

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-length embeddings of texts: (C, E), on a disk."""
        parts = list(_batches(texts, ROWS_PER_BLOCK))
        return self.store.matrix(
            [Block(self.store.name_of("\n".join(part)), partial(self._encode_texts, part)) for part in parts]
        )

    @torch.no_grad()
    def similarities(self, images: Tensor, captions: Sequence[Sequence[str]]) -> Sequence[Tensor]:
        """Cosine similarity of each image, (B, 3, H, W) normalized, with its captions: B x (captions,)."""
        features = _finite(self.objective.features(images.to(self.device)), "images")
        texts = self._encode_texts([text for each in captions for text in each])
        counts = list(map(len, captions))
        of_images = self.project(features).repeat_interleave(torch.tensor(counts), dim=0)
        return (of_images * texts).sum(dim=1).split(counts)

    def _block(self, part: Part) -> Block:
        return Block(self.store.name_of(part), partial(self._encode, self.objective.features, part))

    @torch.no_grad()
    def _encode(self, encode: Callable[[Tensor], Tensor], source: ImageTable | Part) -> Tensor:
        batches = _batches(source.images(), BATCH_SIZE)
        return _finite(
            torch.cat([encode(self.load(batch)).cpu() for batch in batches]), f"images of {source}"
        )

    @torch.no_grad()
    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        batches = (
            [x.to(self.device) for x in self.tokenizer.encode(part)] for part in _batches(texts, BATCH_SIZE)
        )
        return _finite(torch.cat([self.objective.encode_text(*batch).cpu() for batch in batches]), "texts")


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """As many items at a time, or fewer at the end."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _finite(vectors: Tensor, what: str) -> Tensor:
    num_broken = int((~vectors.isfinite().all(dim=1)).sum())
    if num_broken:
        raise NoOutcomesError(
            f"its features of {num_broken} of {len(vectors)} {what} are not finite; "
            "measure an earlier checkpoint"
        )
    return vectors
