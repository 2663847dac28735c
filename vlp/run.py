"""A pre-training run: one method, stated completely."""

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Annotated

import torch

from vlp.core.config import StrictConfig, check_name, naming
from vlp.core.registry import ByName
from vlp.data.config import DataConfig
from vlp.encoders import IMAGE_ENCODERS, ImageEncoderConfig
from vlp.encoders.vit import ViTConfig
from vlp.evaluation.config import EvaluationConfig
from vlp.masking import STRATEGIES, MaskStrategy
from vlp.masking.none import NoMask
from vlp.objectives import OBJECTIVES, Objective, ObjectiveConfig, Vocabulary
from vlp.text_masking import TEXT_MASKS, TextMask
from vlp.text_masking.none import NoTextMask
from vlp.tokenizers import TOKENIZERS, Tokenizer, TokenizerConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import DocumentFrequency
from vlp.training.flops import step_flops
from vlp.training.length import LengthConfig
from vlp.training.lr_schedule import LR_SCHEDULES, Cosine, LRSchedule
from vlp.training.memory import StepMemory, step_memory
from vlp.training.optim import OPTIMIZERS, AdamWConfig, OptimizerConfig
from vlp.training.step import TrainingConfig, TuningConfig
from vlp.weights.initialization import InitFrom


@dataclass(frozen=True, kw_only=True)
class RunConfig(StrictConfig):
    """Everything that decides a run's result. The keys of `conf/run/*.yaml` are these fields."""

    name: str
    """The method's name in tables, folders and MLflow."""
    plugins: tuple[str, ...] = ()
    """Modules of one's own, such as my_package.masks, that are imported before the settings are read: the
    classes that they register are choices like the others."""
    seed: int = 0
    """Of the first weights, the order of the samples, their augmentation and the masks."""
    data: DataConfig = DataConfig()
    """What is trained on, and how images are augmented."""
    tokenizer: Annotated[TokenizerConfig, ByName(TOKENIZERS)] = field(default_factory=ClipBPEConfig)
    """What turns captions into ids."""
    image_encoder: Annotated[ImageEncoderConfig, ByName(IMAGE_ENCODERS, default="vit")] = ViTConfig()
    """The network that sees the images."""
    mask: Annotated[MaskStrategy, ByName(STRATEGIES)] = NoMask()
    """Which patches of each image are hidden from the encoder."""
    text_mask: Annotated[TextMask, ByName(TEXT_MASKS)] = NoTextMask()
    """Which tokens of each caption are hidden from all that reads it."""
    objective: Annotated[ObjectiveConfig, ByName(OBJECTIVES)]
    """What is learned: the model with the loss that it is trained on."""
    optimizer: Annotated[OptimizerConfig, ByName(OPTIMIZERS, default="adamw")] = AdamWConfig()
    """How the weights follow the gradient, and the peak of the learning rate."""
    lr_schedule: Annotated[LRSchedule, ByName(LR_SCHEDULES, default="cosine")] = Cosine()
    """How the learning rate goes over the training."""
    training: TrainingConfig = TrainingConfig()
    """How long and how a model is trained."""
    init_from: InitFrom | None = None
    """Weights of another model to start from; None draws them at random."""
    tuning: TuningConfig | None = None
    """Steps on whole images after the masked ones."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What the model is measured on, and when."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)
        with naming("mask."):
            self.mask.check(self.image_encoder.num_patches)
        self.objective.check(self.image_encoder, self.mask)
        self._check_classes()
        self._check_text_mask()
        if self.objective.keeps_image_encoder and self.init_from is None:
            raise ValueError(
                f"objective {self.objective.name} does not train the image encoder; "
                "name the run or the file that has its weights by init_from.path"
            )
        with naming("objective."):
            self.objective.check_normalization(self.data.normalization)
        if self.tuning:
            with naming("tuning trains on whole images: "):
                self.objective.check(self.image_encoder, NoMask())

    def _check_classes(self) -> None:
        if self.objective.tells_classes and not self.tokenizer.names_classes:
            raise ValueError(
                f"objective {self.objective.name} learns classes, and tokenizer {self.tokenizer.name} reads "
                "words; set tokenizer.name=classes and tokenizer.path to a file of the classes' names"
            )

    def _check_text_mask(self) -> None:
        with naming("text_mask."):
            self.text_mask.check(self.tokenizer.context_length)
        if self.text_mask.hides_any(self.tokenizer.context_length) and not self.objective.reads_captions:
            raise ValueError(
                f"text_mask {self.text_mask.name} hides words, but objective {self.objective.name} reads no "
                "captions; set text_mask.name=none"
            )

    @property
    def why_docfreq(self) -> str | None:
        """What of the run needs the table of the docfreq stage; None where nothing does."""
        if self.objective.needs_document_frequency:
            return "objective.idf is offline"
        return f"text_mask is {self.text_mask.name}" if self.text_mask.needs_token_counts else None

    def may_change(self, key: str) -> bool:
        """Whether a run can go on from a checkpoint with another value of a setting, by its dotted key.

        What the weights, the optimizer's groups, and the order of the data are made of stays.
        """
        room, _, name = key.partition(".")
        if room == "optimizer":
            return bool(name) and name not in self.optimizer.FIXED
        return room in ("mask", "text_mask", "lr_schedule") or key == "training.max_grad_norm"

    def check_files(self) -> None:
        """Raise a ValueError that names the setting if a file the model is made of is missing or wrong."""
        with naming("tokenizer: "):
            self.tokenizer.build()
        with naming("objective."):
            self.objective.check_files()

    def vocabulary(self, tokenizer: Tokenizer, table: DocumentFrequency | None = None) -> Vocabulary:
        """What the objective knows of the captions: all counts are 0 where they come with the weights.

        Args:
            tokenizer: the run's own, built.
            table: counts of the training captions, where the objective needs them.
        """
        none = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)
        return Vocabulary(
            size=tokenizer.vocab_size,
            context_length=self.tokenizer.context_length,
            special_tokens=tokenizer.special_tokens,
            # Copies: what Ray's workers share cannot be written.
            document_frequency=none if table is None else torch.tensor(table.counts),
            num_documents=0 if table is None else table.num_documents,
            token_counts=none if table is None else torch.tensor(table.occurrences),
        )

    def build(self, vocabulary: Vocabulary) -> Objective:
        """The model with fresh weights, which are a function of the seed."""
        torch.manual_seed(self.seed)
        objective = self.objective.build(self.image_encoder.build(), self.mask, vocabulary=vocabulary)
        objective.hide_words(self.text_mask, vocabulary)
        return objective

    def check_length(self) -> None:
        """Raise a ValueError that names the setting unless the length pays for a step, or is still open, and
        the learning rate goes all its way in it."""
        if self.needs_measuring:
            return
        with naming("training."):
            steps = affordable_steps(self)
        if steps:  # an untrained network has none
            with naming("lr_schedule."):
                self.lr_schedule.check(steps)
        if self.tuning:
            with naming("tuning.lr_schedule."):
                self.tuning.lr_schedule.check(self.tuning.steps)

    @property
    def needs_measuring(self) -> bool:
        """Whether the number of steps is open until the pace, or what the mask shows, was measured."""
        return self.training.length.needs_pace or self.needs_visible_patches

    @property
    def needs_visible_patches(self) -> bool:
        """Whether the length is of visible tokens, and the mask shows a number of them that is not known."""
        length = self.training.length
        is_unequal = self.objective.drops_patches and not self.mask.is_exact
        return length.measure == "visible_tokens" and length.visible_patches is None and is_unequal

    @cached_property
    def resolved_training(self) -> TrainingConfig:
        """`training` with its length in steps."""
        return replace(self.training, length=LengthConfig(steps=self.num_masked_steps))

    @cached_property
    def num_masked_steps(self) -> int:
        """Optimizer steps before the tuning; FLOPs are counted when this is first asked for."""
        return affordable_steps(self)

    @property
    def num_steps(self) -> int:
        """Optimizer steps in all."""
        return self.num_masked_steps + (self.tuning.steps if self.tuning else 0)

    @property
    def lr_scale(self) -> float:
        """By which every rate is multiplied for the size of the run's batches."""
        return self.training.batch_size / (self.optimizer.lr_batch_size or self.training.batch_size)

    def learning_rate(self, step: int) -> float:
        """The rate of a step; the schedule starts anew with the tuning."""
        steps, tuning = self.num_masked_steps, self.tuning
        if tuning and step >= steps:
            rate = tuning.lr_schedule(step - steps, peak=tuning.lr, total_steps=tuning.steps)
        else:
            rate = self.lr_schedule(step, peak=self.optimizer.lr, total_steps=steps)
        return rate * self.lr_scale


def validation_metric(config: RunConfig) -> str | None:
    """The metric by which checkpoints are compared; None where none is measured while the run trains."""
    if config.evaluation.every_steps is None:
        return None
    metric = config.evaluation.main_metric(config.objective, config.tokenizer)
    return None if metric is None else f"val/{metric}"


def affordable_steps(run: RunConfig) -> int:
    """Steps that the length of a run pays for, tuning excluded.

    Raises:
        ValueError: not even one; or the step cannot be counted, or its pace was not measured.
    """
    length, batch_size = run.training.length, run.training.batch_size
    if length.steps is not None:
        return length.steps
    if length.needs_pace:
        raise ValueError("length.seconds pays for a number of steps that is known once training starts")
    if run.needs_visible_patches:
        raise ValueError("length.visible_tokens pays for steps that are known once the mask is calibrated")
    if length.seconds_per_step is not None:
        return length.num_steps(length.seconds_per_step)
    if length.measure == "samples":
        return length.num_steps(batch_size)
    if length.measure == "visible_tokens":
        return length.num_steps(batch_size * visible_tokens(run))
    return length.num_steps(flops_of_step(run, batch_size))


def visible_tokens(run: RunConfig) -> float:
    """Tokens that the encoders read of one pair, in the mean."""
    patches = run.training.length.visible_patches or slots_per_image(run)
    return patches + run.objective.encodes_text * run.text_mask.tokens_left(run.tokenizer.context_length)


def slots_per_image(run: RunConfig) -> int:
    """Places for an image's patches in the encoder's input, which an image may fill in part."""
    num_patches = run.image_encoder.num_patches
    return run.mask.num_visible(num_patches) if run.objective.drops_patches else num_patches


@lru_cache(maxsize=8)  # settings are made again and again of the same parts
def _flops(
    objective: ObjectiveConfig,
    image_encoder: ImageEncoderConfig,
    mask: MaskStrategy,
    text_mask: TextMask,
    tokenizer: TokenizerConfig,
    batch_size: int,
) -> int:
    vocabulary = _sizes_of(tokenizer)
    return step_flops(
        objective, image_encoder, mask, text_mask=text_mask, vocabulary=vocabulary, batch_size=batch_size
    )


def flops_of_step(run: RunConfig, batch_size: int) -> int:
    """Floating-point operations of a masked step of a run on so many pairs."""
    return _flops(run.objective, run.image_encoder, run.mask, run.text_mask, run.tokenizer, batch_size)


def memory_of_step(run: RunConfig, batch_size: int) -> StepMemory:
    """What a worker holds in a step of a run on so many pairs of its own."""
    return step_memory(
        run.objective,
        run.image_encoder,
        run.mask,
        text_mask=run.text_mask,
        vocabulary=_sizes_of(run.tokenizer),
        batch_size=batch_size,
    )


def _sizes_of(tokenizer: TokenizerConfig) -> Vocabulary:
    built = tokenizer.build()
    return Vocabulary(
        size=built.vocab_size,
        context_length=tokenizer.context_length,
        special_tokens=built.special_tokens,
        document_frequency=torch.zeros(built.vocab_size, dtype=torch.int64, device="meta"),
    )
