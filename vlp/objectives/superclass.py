"""SuperClass (arXiv:2411.03313): classify which vocabulary tokens the caption contains."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.core.distributed import all_sum
from vlp.core.registry import ByName
from vlp.encoders import ImageEncoder
from vlp.losses.labels import LABEL_LOSSES, LabelLoss, Labels, SoftmaxLoss
from vlp.masking import MaskStrategy, Slots
from vlp.objectives.encode_in_parts import Outputs
from vlp.objectives.objective import (
    OBJECTIVES,
    Batch,
    Objective,
    ObjectiveConfig,
    Step,
    Vocabulary,
    mean_of_patches,
)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class SuperClassConfig(ObjectiveConfig):
    """Settings of the classifier."""

    name: Literal["superclass"] = "superclass"
    paper: ClassVar[str] = "2411.03313"
    idf: Literal["online", "offline", "none"] = "online"
    """Where the inverse document frequencies come from: counted during training (as released),
    the table of the docfreq stage, or all ones."""
    loss: Annotated[LabelLoss, ByName(LABEL_LOSSES)] = SoftmaxLoss()
    """What compares the logits with the labels."""
    special_tokens: Literal["drop", "keep"] = "drop"
    """Whether start-of-text, end-of-text and the padding, as id 0, are labels too, as released."""

    @property
    def formula(self) -> str:
        return self.loss.formula

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.idf != "none" and not self.loss.takes_idf:
            raise ValueError(f"idf must be none for the loss {self.loss.name}, which weighs all labels alike")
        if self.idf == "offline" and self.special_tokens == "keep":
            raise ValueError("special_tokens must be drop with offline idf: the table counts words only")

    @property
    def needs_document_frequency(self) -> bool:
        return self.idf == "offline"

    def build(
        self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary
    ) -> "SuperClass":
        return SuperClass(self, image_encoder, mask, vocabulary=vocabulary)


class SuperClass(Objective):
    """An image encoder and a linear classifier over the vocabulary; no text encoder."""

    document_frequency: Tensor
    num_documents: Tensor
    special_tokens: Tensor

    def __init__(
        self,
        config: SuperClassConfig,
        image_encoder: ImageEncoder,
        mask: MaskStrategy,
        *,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(image_encoder, mask)
        self.config = config
        self.context_length = vocabulary.context_length
        width = image_encoder.width
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, vocabulary.size)
        nn.init.normal_(self.classifier.weight, std=width**-0.5)
        nn.init.zeros_(self.classifier.bias)
        counts, num_documents = torch.zeros(vocabulary.size, dtype=torch.int64), 0
        if config.idf == "offline":
            if vocabulary.document_frequency is None:
                raise ValueError("objective.idf offline needs the table of the docfreq stage")
            counts, num_documents = vocabulary.document_frequency, vocabulary.num_documents
        self.register_buffer("document_frequency", counts.clone())
        self.register_buffer("num_documents", torch.tensor(num_documents))
        special = torch.tensor(vocabulary.special_tokens, dtype=torch.int64)
        self.register_buffer("special_tokens", special, persistent=False)

    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """What the classifier reads: (B, D)."""
        return (self._pool(self.image_encoder(batch.images, slots), slots),)

    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        (features,) = outputs
        labels = self.labels(batch)
        if self.config.idf == "online" and self.training:
            self._count(labels)
        return Step(self.config.loss(self.classifier(features), labels, self.idf()), {})

    def changing_buffers(self) -> list[Tensor]:
        counts = [self.document_frequency, self.num_documents] if self.config.idf == "online" else []
        return [*counts, *self.image_encoder.changing_buffers()]

    def features(self, images: Tensor) -> Tensor:
        return self._pool(self.image_encoder(images), None)

    def labels(self, batch: Batch) -> Labels:
        """The classes that each caption names: (B, T) tokens -> (B, T) slots."""
        if self.config.special_tokens == "drop":
            return caption_labels(batch.tokens, batch.lengths, special_tokens=self.special_tokens)
        # The release pads to the context length, so every shorter caption has the label 0.
        is_padded = (batch.lengths < self.context_length)[:, None]
        tokens = torch.cat([batch.tokens[:, :1].where(~is_padded, 0), batch.tokens], dim=1)
        return caption_labels(tokens, batch.lengths + 1, special_tokens=self.special_tokens[:0])

    def idf(self) -> Tensor:
        """The weight of each token, log((n + 1) / (df + 1)) >= 0: (K,). Section 3.2, counts form."""
        if self.config.idf == "none":
            return torch.ones_like(self.document_frequency, dtype=torch.float32)
        return ((self.num_documents + 1) / (self.document_frequency + 1)).log().float()

    def _pool(self, states: Tensor, slots: Slots | None) -> Tensor:
        return self.norm(mean_of_patches(states, slots))

    @torch.no_grad()
    def _count(self, labels: Labels) -> None:
        counts = torch.zeros_like(self.document_frequency)
        counts.scatter_add_(0, labels.ids.flatten(), labels.is_label.flatten().to(counts.dtype))
        documents = torch.full_like(self.num_documents, len(labels.ids))
        self.document_frequency += all_sum(counts)
        self.num_documents += all_sum(documents)


def caption_labels(tokens: Tensor, lengths: Tensor, *, special_tokens: Tensor) -> Labels:
    """Each caption's set of tokens, without padding and special tokens: (B, T), (B,) -> (B, T) slots."""
    position = torch.arange(tokens.shape[1], device=tokens.device)
    is_word = (position < lengths[:, None]) & ~torch.isin(tokens, special_tokens)
    ids = tokens.masked_fill(~is_word, -1).sort(dim=1).values
    previous = F.pad(ids[:, :-1], (1, 0), value=-1)
    return Labels(ids.clamp(min=0), ids != previous)
