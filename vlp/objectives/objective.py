"""What a training objective is: a model together with the loss it is trained on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from torch import Generator, Tensor, nn

from vlp.core.batch import Batch
from vlp.core.config import StrictConfig
from vlp.core.distributed import rows_of_global_draw
from vlp.core.normalization import Normalization
from vlp.core.registry import Registry
from vlp.encoders import ImageEncoder, ImageEncoderConfig
from vlp.encoders.blocks import Encoder
from vlp.encoders.drop_path import draw_drop_paths, set_drop_paths
from vlp.masking import MaskInputs, MaskStrategy, Slots, visible_slots
from vlp.masking.strategy import uniform_noise
from vlp.objectives.encode_in_parts import Outputs, Part, encode_in_parts
from vlp.text_masking import TextMask, Words
from vlp.text_masking.none import NoTextMask

Architecture = Literal["clip", "mae", "other"]
Pooling = Literal["class_token", "mean"]
"""Which states of an image encoder stand for the image: the first, or the mean of the patches'."""

OBJECTIVES = Registry()


class Step(NamedTuple):
    """What every objective returns."""

    loss: Tensor
    """Scalar to minimize; its mean over the workers is the loss of the global batch."""
    metrics: dict[str, Tensor]
    """Detached scalars to log."""


class Vocabulary(NamedTuple):
    """What an objective knows about the captions before training."""

    size: int
    """Number of token ids."""
    context_length: int
    """Tokens of a caption at most, the special ones included."""
    special_tokens: tuple[int, ...] = ()
    """Ids that are no words, such as the start and the end of a text."""
    document_frequency: Tensor | None = None
    """(size,) int64, captions that contain each token; None where it was not counted."""
    num_documents: int = 0
    """Captions counted."""
    token_counts: Tensor | None = None
    """(size,) int64, occurrences of each token in the captions; None where they were not counted."""


class Objective(nn.Module, ABC):
    """Owns every trained weight, so wrapping it in DDP wraps the model."""

    text_mask: TextMask = NoTextMask()
    """What is hidden of captions in training; `hide_words` sets it."""
    token_shares: Tensor | None
    """(size,) float, what a text mask that asks for it knows of each token."""
    context_length: int = 0
    """Tokens of a caption at most; 0 where no captions are read."""
    look: Callable[[Tensor], MaskInputs] | None = None
    """How masks see images, (B, 3, H, W); None for the image encoder's own view."""
    draws: Tensor | None = None
    """(B, num_draws) numbers in [0, 1) for the pairs that are encoded next; None outside of a step."""
    num_parts: int = 1
    """Parts in which a batch is encoded, one after another, to need less memory; no result depends on it."""

    def __init__(self, image_encoder: ImageEncoder, mask: MaskStrategy) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.mask = mask

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """What is made of blocks and may learn more slowly the nearer it is to the input, by attribute."""
        return {"image_encoder": self.image_encoder}

    @property
    def blocks(self) -> list[nn.Module]:
        """Every block that is trained: of the encoders, and of a decoder."""
        return [block for encoder in self.encoders.values() for block in encoder.blocks]

    @property
    def num_draws(self) -> int:
        """Numbers in [0, 1) that `encode` wants drawn for each pair at a step: its `draws`."""
        return 0

    def forward(self, batch: Batch, *, progress: float, generator: Generator | None) -> Step:
        """The loss of one batch.

        Args:
            progress: share of the training that is done, in [0, 1); drives every schedule.
            generator: source of the masks' randomness, seeded alike on every worker.
        """
        batch = self.mix(batch, generator)
        slots = self.choose_visible(batch.images, progress=progress, generator=generator)
        paths = draw_drop_paths(self, len(batch.images), generator)
        batch = self.choose_words(batch, generator)
        size, device = (len(batch.images), self.num_draws), batch.images.device
        draws = rows_of_global_draw(size, device, generator) if self.num_draws else None
        outputs = encode_in_parts(self._encode_part, Part(batch, slots, paths, draws), self.num_parts)
        loss, metrics = self.loss(outputs, batch, slots)
        return Step(loss, metrics | {"mask_ratio": self.mask_ratio(slots)})

    def _encode_part(self, part: Part) -> Outputs:
        set_drop_paths(self, part.paths)  # again for the second pass of a part
        self.draws = part.draws
        return self.encode(part.batch, part.slots)

    @abstractmethod
    def encode(self, batch: Batch, slots: Slots) -> Outputs:
        """What the loss reads, of each pair by itself: the rows of a pair depend on no other pair."""

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch, slots: Slots) -> Step:
        """What becomes of the pairs together: the loss, and what else is to be logged."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """What frozen-feature evaluations read, of whole images: (B, 3, H, W) -> (B, D)."""

    def patch_states(self, images: Tensor) -> Tensor:
        """What attentive evaluations read, of whole images: (B, 3, H, W) -> (B, N, D)."""
        return self.image_encoder(images)[:, 1:]

    def changing_buffers(self) -> list[Tensor]:
        """Buffers that the forward pass changes, in place; what is not saved with the weights is constant."""
        saved = self.state_dict()
        return [buffer for name, buffer in self.named_buffers() if name in saved]

    def project(self, features: Tensor) -> Tensor:
        """Unit-length embeddings of images whose features are known: (B, D) -> (B, E).

        Raises:
            TypeError: the objective learns no space that texts share; those that do say `encodes_text`.
        """
        raise TypeError(f"{type(self).__name__} learns no space that images and texts share; use features")

    def classify(self, features: Tensor) -> Tensor:
        """Logits of the classes of images whose features are known: (B, D) -> (B, K).

        Raises:
            TypeError: the objective learns no classes that images have; those that do say `tells_classes`.
        """
        raise TypeError(f"{type(self).__name__} tells no classes of images; use features")

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit-length embeddings of whole images, or a TypeError as `project`: (B, 3, H, W) -> (B, E)."""
        return self.project(self.features(images))

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Unit-length embeddings of captions, or a TypeError as `project`: (B, T), (B,) -> (B, E)."""
        raise TypeError(f"{type(self).__name__} has no text encoder; it learns features of images alone")

    def rebuild(self, images: Tensor, slots: Slots) -> Tensor | None:
        """Whole images as they are predicted from their visible patches, normalized: (B, 3, H, W) twice.

        None for an objective that predicts no colours.
        """
        return None

    def after_update(self) -> None:
        """Called after each step, bad ones too; for constraints on weights, such as a clamped logit scale."""

    def mix(self, batch: Batch, generator: Generator | None) -> Batch:
        """The batch that is learned from in this step: as it came, or its images mixed with each other."""
        return batch

    def choose_visible(self, images: Tensor, *, progress: float, generator: Generator | None) -> Slots:
        """The patches of each image that the encoder sees in this step: (B, 3, H, W) -> V slots."""
        inputs = self.mask_inputs(images)
        masked = self.mask(inputs, progress=progress, generator=generator)
        noise = None if self.mask.is_exact else uniform_noise(inputs, generator)
        return visible_slots(masked, self.mask.num_visible(inputs.num_patches), noise)

    def hide_words(self, text_mask: TextMask, vocabulary: Vocabulary) -> None:
        """Read captions by a text mask from now on.

        Raises:
            ValueError: the mask needs counts of the tokens, and the vocabulary has none.
        """
        shares = None
        if text_mask.needs_token_counts:
            if vocabulary.token_counts is None:
                raise ValueError(f"text mask {text_mask.name} needs the table of the docfreq stage")
            counts = vocabulary.token_counts.double()
            shares = (counts / counts.sum().clamp(min=1)).float()
        self.text_mask, self.context_length = text_mask, vocabulary.context_length
        self.register_buffer("token_shares", shares, persistent=False)

    def choose_words(self, batch: Batch, generator: Generator | None) -> Batch:
        """The captions of a batch as they are read in this step, cut by the text mask."""
        if not self.text_mask.hides_any(self.context_length):
            return batch
        B, T = batch.tokens.shape
        # Of the whole context, so that no draw depends on how long the captions of a worker are.
        noise = rows_of_global_draw((B, self.context_length), batch.tokens.device, generator)[:, :T]
        shares = None if self.token_shares is None else self.token_shares[batch.tokens]
        tokens, lengths = self.text_mask(Words(batch.tokens, batch.lengths, noise, shares))
        return batch._replace(tokens=tokens, lengths=lengths)

    def mask_inputs(self, images: Tensor) -> MaskInputs:
        """What the mask is chosen by: (B, 3, H, W)."""
        return (self.look or self.image_encoder.mask_inputs)(images)

    def mask_ratio(self, slots: Slots) -> Tensor:
        """Share of the patches that the encoder did not see, after the cut: ()."""
        visible = slots.keep_indices.new_full((), slots.keep_indices.numel())
        if slots.is_padding is not None:
            visible = visible - slots.is_padding.sum()
        return 1 - visible / (len(slots.keep_indices) * self.image_encoder.config.num_patches)


def pooled(states: Tensor, pool: Pooling, slots: Slots | None) -> Tensor:
    """What stands for an image: the class token, or the mean of its patches: (B, 1 + V, D) -> (B, D)."""
    return states[:, 0] if pool == "class_token" else mean_of_patches(states, slots)


def mean_of_patches(states: Tensor, slots: Slots | None) -> Tensor:
    """Mean of the visible patches' states, class token excluded: (B, 1 + V, D) -> (B, D)."""
    patches = states[:, 1:]
    if slots is None or slots.is_padding is None:
        return patches.mean(dim=1)
    is_visible = (~slots.is_padding)[:, :, None]
    return (patches * is_visible).sum(dim=1) / is_visible.sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(ABC, StrictConfig):
    """The settings of an objective; `build` makes its model."""

    name: str
    """Which objective it is."""

    paper: ClassVar[str] = ""
    """Number of the paper on arXiv."""
    drops_patches: ClassVar[bool] = True
    """Whether hidden patches are left out of the encoder's input; if not, a mask token takes their places."""
    reads_captions: ClassVar[bool] = True
    """Whether captions are learned from; if not, images without any are samples, too."""
    encodes_text: ClassVar[bool] = False
    """Whether captions go through a text encoder, and are compared with images."""
    tells_classes: ClassVar[bool] = False
    """Whether captions are names of classes, one for each image, which the model learns to tell."""
    architecture: ClassVar[Architecture] = "other"
    """What its weights are, by the names that libraries know it by."""
    keeps_image_encoder: ClassVar[bool] = False
    """Whether the image encoder is not trained, so that it has to come with weights of its own."""
    rebuilds_patches: ClassVar[bool] = False
    """Whether the hidden patches are what is learned, so that a mask has to hide some."""

    @property
    def rows_together(self) -> int:
        """Rows of a batch that one worker has to have together: its share is a multiple of them."""
        return 1

    @property
    def formula(self) -> str:
        """The loss, in plain text."""
        return ""

    @property
    def pooling(self) -> Pooling | None:
        """Which states of the image encoder `features` are; None where something of its own comes after."""
        return None

    @property
    def needs_document_frequency(self) -> bool:
        """Whether it is built with the counts of the captions of the training data."""
        return False

    def check(self, image_encoder: ImageEncoderConfig, mask: MaskStrategy) -> None:
        """Raise a ValueError unless the objective can be trained with this encoder and mask."""
        hides_nothing = not mask.hides_any(image_encoder.num_patches)
        if self.rebuilds_patches and hides_nothing:
            raise ValueError(
                f"objective {self.name} rebuilds hidden patches, but mask {mask.name} hides none; "
                "choose another mask or a higher mask ratio"
            )
        if self.drops_patches and not hides_nothing and not image_encoder.can_drop_patches:
            raise ValueError(
                f"objective {self.name} leaves hidden patches out, but image_encoder {image_encoder.label} "
                "needs all of them; choose mask none, or another image_encoder, such as vit"
            )
        if not self.drops_patches and not image_encoder.takes_mask_token:
            raise ValueError(
                f"objective {self.name} puts a mask token in the place of hidden patches, but image_encoder "
                f"{image_encoder.label} takes none; choose another image_encoder, such as vit"
            )
        if unseen := sorted(mask.views - image_encoder.views):
            raise ValueError(
                f"mask {mask.name} reads {', '.join(unseen)}, which image_encoder {image_encoder.label} does "
                "not offer; choose another mask or image_encoder, such as vit"
            )

    def chance_loss(self, batch_size: int) -> float | None:
        """The loss of guessing, at which a training that learns nothing stays; None where it is not known."""
        return None

    def check_normalization(self, normalization: Normalization) -> None:
        """Raise a ValueError unless the objective can be trained on images normalized so."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Files whose content the model is made of, by the setting that names each."""
        return {}

    def check_files(self) -> None:
        """Raise a ValueError that names the setting if one of `files` is missing or holds something else."""

    @abstractmethod
    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> Objective:
        """A new model around the encoder; `vocabulary` is that of the captions of its training data."""
