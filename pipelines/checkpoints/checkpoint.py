"""A training run on disk: everything that going on, or using the model, needs."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import yaml
from torch.amp.grad_scaler import GradScaler

from pipelines.checkpoints.store import aside, find_damage, write_manifest
from pipelines.config.errors import ConfigError, UserError
from pipelines.config.settings import Layers, build, to_dict
from vlp.masking import MaskStrategy
from vlp.objectives import Objective, Vocabulary
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST
from vlp.training.bad_steps import StepHistory
from vlp.training.ema import EMA
from vlp.training.step import NO_SCALING

MODEL, TRAINING, CONFIG = "model.pt", "training.pt", "config.yaml"


@dataclass
class TrainingState:
    """All that a run has learned so far."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    mask: MaskStrategy
    """As last calibrated."""
    step: int = 0
    """Steps done."""
    history: StepHistory = field(default_factory=StepHistory)
    """By which bad steps are told."""
    scaler: GradScaler = NO_SCALING

    @property
    def model(self) -> Objective:
        """What is evaluated and exported: the averaged weights, where there are some."""
        return self.ema.objective if self.ema else self.objective


class Contents(NamedTuple):
    """What a checkpoint holds; its tensors are the run's own, which training changes, or copies of them."""

    config: RunConfig
    """With the mask as last calibrated."""
    model: dict[str, torch.Tensor]
    training: dict[str, Any]
    """What only going on needs."""

    @classmethod
    def of(cls, config: RunConfig, state: TrainingState) -> "Contents":
        """What a run has learned so far."""
        training: dict[str, Any] = {"step": state.step, "optimizer": state.optimizer.state_dict()}
        training |= {"history": state.history.state_dict(), "scaler": state.scaler.state_dict()}
        if state.ema:
            training["weights"] = state.objective.state_dict()
        return cls(replace(config, mask=state.mask), state.model.state_dict(), training)


def save_checkpoint(
    folder: Path, contents: Contents, *, metrics: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Write a checkpoint folder whole or not at all.

    `model.pt` and `config.yaml` are the model; `training.pt` is what only going on needs; `manifest.json`
    tells whether they are still what was written.

    Args:
        metrics: what was measured of the model, by which checkpoints are compared.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    torch.save(contents.model, temporary / MODEL)
    torch.save(contents.training, temporary / TRAINING)
    (temporary / CONFIG).write_text(yaml.safe_dump(to_dict(contents.config), sort_keys=False))
    write_manifest(temporary, step=contents.training["step"], metrics=metrics)
    for former in (folder, aside(folder)):
        shutil.rmtree(former, ignore_errors=True)
    temporary.rename(folder)


def restore_training(folder: Path, state: TrainingState) -> None:
    """Go on where a checkpoint was saved."""
    device = next(state.objective.parameters()).device
    training = _load(folder / TRAINING, device)
    state.model.load_state_dict(_load(folder / MODEL, device))
    if state.ema:
        state.objective.load_state_dict(training["weights"])
    state.optimizer.load_state_dict(training["optimizer"])
    state.history.load_state_dict(training["history"])
    state.scaler.load_state_dict(training["scaler"])
    state.mask, state.step = read_run(folder / CONFIG).mask, training["step"]


def load_model(folder: Path, device: torch.device) -> tuple[Objective, RunConfig]:
    """A trained model, ready for evaluation, and the run that it came from.

    Raises:
        ConfigError: as `check_checkpoint`; or the weights cannot be read, or are those of other settings.
    """
    config = check_checkpoint(folder)
    # The settings may be edited, to name a file's new place; and the weights may have come without manifest.
    if (folder / MANIFEST).is_file() and (damage := find_damage(folder, only={MODEL})):
        raise UserError(
            f"checkpoint: {folder} is broken: {damage}; choose another checkpoint, or put it back"
        )
    objective = build_objective(config, document_frequency=None).to(device)
    try:
        objective.load_state_dict(_load(folder / MODEL, device))
    except (RuntimeError, EOFError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else "it breaks off"
        raise UserError(
            f"checkpoint: {folder / MODEL} does not hold the weights of its {CONFIG}: {reason}; "
            "choose another checkpoint, or put back the files that its settings name"
        ) from error
    return objective.eval(), config


def find_checkpoint(folder: Path) -> Path:
    """The folder itself if it is a checkpoint, or the last checkpoint of a finished run.

    Raises:
        ConfigError: it is neither, or a file is missing that loading the checkpoint needs.
    """
    manifest = folder / MANIFEST
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    checkpoint = folder / content.get("checkpoint", "")
    if not (checkpoint / MODEL).is_file():
        raise ConfigError(f"checkpoint: {folder} is neither a checkpoint nor a finished run: no {MODEL}")
    check_checkpoint(checkpoint)
    return checkpoint


def check_checkpoint(folder: Path) -> RunConfig:
    """The run of a checkpoint, after a look at all files that loading it needs.

    Raises:
        ConfigError: the folder holds no checkpoint, or the file of its tokenizer or of its codes is missing.
    """
    for name in (MODEL, CONFIG):
        if not (folder / name).is_file():
            raise ConfigError(f"checkpoint: {folder} is no checkpoint: it has no {name}")
    run = read_run(folder / CONFIG)
    try:
        run.check_files()
    except ValueError as error:
        raise UserError(
            f"checkpoint: {folder} needs a file: {error}; put it back, or name its place in {folder / CONFIG}"
        ) from error
    return run


def read_run(file: Path) -> RunConfig:
    """The settings that a run or a checkpoint was saved with; a calibrated mask has its threshold."""
    return build(RunConfig, Layers().add(yaml.safe_load(file.read_text()), str(file)))


def build_objective(
    config: RunConfig, *, document_frequency: torch.Tensor | None, num_documents: int = 0
) -> Objective:
    """A model with fresh weights, which are a function of the run's seed.

    Args:
        document_frequency: (vocabulary,) int64; None where it is not needed or comes with the weights.
    """
    tokenizer = config.tokenizer.build()
    if document_frequency is None:
        document_frequency = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)
    vocabulary = Vocabulary(
        size=tokenizer.vocab_size,
        context_length=config.tokenizer.context_length,
        special_tokens=tokenizer.special_tokens,
        document_frequency=document_frequency,
        num_documents=num_documents,
    )
    torch.manual_seed(config.seed)
    return config.objective.build(config.image_encoder.build(), config.mask, vocabulary=vocabulary)


def _load(file: Path, device: torch.device) -> Any:
    return torch.load(file, map_location=device, weights_only=True)
