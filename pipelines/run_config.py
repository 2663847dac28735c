"""A pre-training run: one method, stated completely."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pipelines.budget import affordable_steps
from pipelines.config import check_name
from pipelines.config_errors import ConfigError
from vlp.config import StrictConfig
from vlp.data.config import DataConfig
from vlp.encoders import IMAGE_ENCODERS
from vlp.encoders.vit import ViTConfig
from vlp.initialization import InitFrom
from vlp.lr_schedule import LR_SCHEDULES, Cosine
from vlp.masking import STRATEGIES
from vlp.masking.none import NoMask
from vlp.objectives import OBJECTIVES
from vlp.objectives.class_targets import ClassTargetConfig
from vlp.optim import OPTIMIZERS, AdamWConfig
from vlp.registry import one_of
from vlp.tokenizers import TOKENIZERS, Tokenizer, TokenizerConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.training import TrainingConfig, TuningConfig


def build_tokenizer(config: TokenizerConfig, key: str) -> Tokenizer:
    """The tokenizer of some settings.

    Raises:
        ConfigError: its file is missing or is none; the message begins with the key.
    """
    try:
        return config.build()
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(StrictConfig):
    """What a model is measured on; what is not given is not measured."""

    retrieval: Mapping[str, Path] = field(default_factory=dict)
    """Set's name, the first part of its metrics -> Parquet file with columns `image` and `captions`."""
    classification: Mapping[str, Path] = field(default_factory=dict)
    """Set's name -> folder of train.parquet and test.parquet (`image`, `label`), and meta.json (`classes`,
    `templates`)."""
    every_steps: int | None = None
    """Also measure during training, this often; None measures only the finished model."""
    num_neighbours: int = 20
    """k of the kNN classifier."""
    shots: tuple[int, ...] = (10,)
    """Labelled images per class of the few-shot classifier, one or more numbers; () for none."""

    def __post_init__(self) -> None:
        for key in ("every_steps", "num_neighbours"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} must be at least 1, got {value}")
        if any(shots < 1 for shots in self.shots):
            raise ValueError(f"shots must be at least 1, got {list(self.shots)}")
        for key in ("retrieval", "classification"):
            for name in getattr(self, key):
                if not re.fullmatch(r"\w[\w-]*", name):
                    raise ValueError(f"{key} must be by names of letters, digits, _ and -, got {name!r}")


@dataclass(frozen=True, kw_only=True)
class RunConfig(StrictConfig):
    """Everything that decides a run's result. The keys of conf/run/*.yaml are these fields."""

    name: str
    """The method's name in tables, folders and MLflow."""
    seed: int = 0
    data: DataConfig = DataConfig()
    tokenizer: one_of(TOKENIZERS) = field(default_factory=ClipBPEConfig)  # pyright: ignore[reportInvalidTypeForm]
    image_encoder: one_of(IMAGE_ENCODERS, default="vit") = ViTConfig()  # pyright: ignore[reportInvalidTypeForm]
    mask: one_of(STRATEGIES) = NoMask()  # pyright: ignore[reportInvalidTypeForm]
    objective: one_of(OBJECTIVES)  # pyright: ignore[reportInvalidTypeForm]
    optimizer: one_of(OPTIMIZERS, default="adamw") = AdamWConfig()  # pyright: ignore[reportInvalidTypeForm]
    lr_schedule: one_of(LR_SCHEDULES, default="cosine") = Cosine()  # pyright: ignore[reportInvalidTypeForm]
    training: TrainingConfig = TrainingConfig()
    init_from: InitFrom | None = None
    """Weights of another model to start from; None draws them at random."""
    tuning: TuningConfig | None = None
    """Steps on whole images after the masked ones."""
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        check_name(self.name)
        try:
            self.mask.check(self.image_encoder.num_patches)
        except ValueError as error:
            raise ValueError(f"mask.{error}") from error
        self.objective.check(self.image_encoder, self.mask)
        self._check_target()
        if self.tuning:
            try:
                self.objective.check(self.image_encoder, NoMask())
            except ValueError as error:
                raise ValueError(f"tuning trains on whole images: {error}") from error
        if self.training.budget and not self.training.budget.needs_pace:
            try:
                affordable_steps(self)
            except ValueError as error:
                raise ValueError(f"training.{error}") from error

    def _check_target(self) -> None:
        target = getattr(self.objective, "target", None)
        if isinstance(target, ClassTargetConfig) and target.normalization != self.data.normalization:
            raise ValueError(
                f"data.normalization is {self.data.normalization} and objective.target.normalization "
                f"{target.normalization}: the target's classes are colours; set both alike"
            )

    @cached_property
    def resolved_training(self) -> TrainingConfig:
        """`training` with the steps that its budget pays for."""
        if self.training.budget is None:
            return self.training
        return replace(self.training, steps=affordable_steps(self), budget=None)

    @property
    def num_masked_steps(self) -> int:
        """Optimizer steps before the tuning."""
        assert self.resolved_training.steps is not None
        return self.resolved_training.steps

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
    """The metric by which checkpoints are compared, of the first set; None where none is measured."""
    if config.evaluation.every_steps is None:
        return None
    pairs, labelled = config.evaluation.retrieval, config.evaluation.classification
    if pairs and config.objective.name == "contrastive":
        return f"val/{next(iter(pairs))}/text_to_image/recall@1"
    return f"val/{next(iter(labelled))}/knn/acc1" if labelled else None
