"""A training run on disk: everything that going on, or using the model, needs."""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.amp.grad_scaler import GradScaler

import vlp.checkpoint
from pipelines.checkpoints.store import aside, find_damage, read_saved, write_manifest
from pipelines.config.errors import ConfigError, UserError, blaming
from pipelines.config.plugins import import_plugins
from pipelines.config.settings import to_dict
from vlp.checkpoint import MODEL, SETTINGS, load_weights
from vlp.core.matmul import Matmul
from vlp.imports import library_of
from vlp.masking import MaskStrategy
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.whole import writing_folder
from vlp.training.bad_steps import StepHistory
from vlp.training.ema import EMA
from vlp.training.step import NO_SCALING

TRAINING, CONFIG = "training.pt", "config.yaml"


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
    matmul: Matmul = "pytorch"
    """What the run multiplies by on a CPU, wherever it goes on."""

    @cached_property
    def changing_buffers(self) -> list[torch.Tensor]:
        """What a forward pass changes beside the weights, in place."""
        return self.objective.changing_buffers()

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
        training["matmul"] = state.matmul
        if state.ema:
            training["weights"] = state.objective.state_dict()
        return cls(replace(config, mask=state.mask), state.model.state_dict(), training)


def save_checkpoint(
    folder: Path, contents: Contents, *, metrics: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Write a checkpoint folder whole or not at all.

    `model.safetensors` and the settings are the model; `training.pt` is what only going on needs;
    `manifest.json` tells whether they are still what was written.

    Args:
        metrics: what was measured of the model, by which checkpoints are compared.
    """
    with writing_folder(folder) as written:
        with _telling_full_disks(written / MODEL):
            save_file({name: x.contiguous() for name, x in contents.model.items()}, written / MODEL)
        with _telling_full_disks(written / TRAINING):
            torch.save(contents.training, written / TRAINING)
        write_settings(written, contents.config)
        write_manifest(written, step=contents.training["step"], metrics=metrics)
    shutil.rmtree(aside(folder), ignore_errors=True)


@contextmanager
def _telling_full_disks(file: Path) -> Iterator[None]:
    """Of a full disk torch says that a position is unexpected, and safetensors has an error of its own."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if not isinstance(error, SafetensorError) and "inline_container" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "no space left, or the disk fails", str(file)) from error


def restore_training(folder: Path, state: TrainingState) -> None:
    """Go on where a checkpoint was saved."""
    device = next(state.objective.parameters()).device
    training = torch.load(folder / TRAINING, map_location=device, weights_only=True)
    state.model.load_state_dict(load_weights(folder / MODEL, device))
    if state.ema:
        state.objective.load_state_dict(training["weights"])
    state.optimizer.load_state_dict(training["optimizer"])
    state.history.load_state_dict(training["history"])
    state.scaler.load_state_dict(training["scaler"])
    state.mask, state.step = read_run(folder).mask, training["step"]


def begin_from(folder: Path, state: TrainingState) -> None:
    """Begin with all that another run has learned, at its step; mask and optimizer are set as they were."""
    mask, options = state.mask, [_options(group) for group in state.optimizer.param_groups]
    restore_training(folder, state)
    state.mask = mask
    for group, own in zip(state.optimizer.param_groups, options, strict=True):
        group.update(own)


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a group of an optimizer's parameters."""
    return {key: value for key, value in group.items() if key != "params"}


def read_trained(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that a training goes on with; where they are averaged, not the averages."""
    training = _read_training(folder)
    return training.get("weights") or load_weights(folder / MODEL, torch.device("cpu"))


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
    try:
        return vlp.checkpoint.load_objective(folder, config, device), config
    except ValueError as error:
        raise UserError(
            f"checkpoint: {error}; choose another checkpoint, or put back the files that its settings name"
        ) from error


def find_checkpoint(folder: Path) -> Path:
    """The folder itself if it is a checkpoint, or the last checkpoint of a finished run.

    Raises:
        ConfigError: it is neither, or a file is missing that loading the checkpoint needs.
    """
    with blaming("checkpoint: "):
        checkpoint = vlp.checkpoint.find_checkpoint(folder)
    check_checkpoint(checkpoint)
    return checkpoint


def steps_done(folder: Path) -> int:
    """After how many steps a checkpoint was written; all of its run where nothing tells, as in a copy.

    Another library's model has none that are known: 0.
    """
    if library_of(folder):
        return 0
    if saved := read_saved(open_folder(folder)):
        return saved.step
    if (folder / TRAINING).is_file():
        return _read_training(folder)["step"]
    return read_run(folder).num_steps


def read_matmul(folder: Path) -> Matmul:
    """What the run of a checkpoint multiplied by."""
    return _read_training(folder)["matmul"]


def _read_training(folder: Path) -> dict[str, Any]:
    """What only going on needs; its tensors stay on disk."""
    return torch.load(folder / TRAINING, map_location="cpu", weights_only=True, mmap=True)


def check_checkpoint(folder: Path) -> RunConfig:
    """The run of a checkpoint, after a look at all files that loading it needs.

    Raises:
        ConfigError: the folder holds no checkpoint, or the file of its tokenizer or of its codes is missing.
    """
    if library_of(folder) is None:
        for name in (MODEL, SETTINGS):
            if not (folder / name).is_file():
                raise ConfigError(f"checkpoint: {folder} is not a checkpoint: it has no {name}")
    run = read_run(folder)
    try:
        run.check_files()
    except ValueError as error:
        raise UserError(
            f"checkpoint: {folder} needs a file: {error}; put it back, or name its place in "
            f"{folder / SETTINGS}"
        ) from error
    return run


def write_settings(folder: Path, config: RunConfig) -> None:
    """Save the settings of a run: `config.json`, which is read, and `config.yaml`, for commands and eyes."""
    settings = to_dict(config)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1))
    (folder / CONFIG).write_text(yaml.safe_dump(settings, sort_keys=False))


def read_run(folder: Path) -> RunConfig:
    """The settings that a run, a checkpoint or a bad step was saved with, after its plug-ins are imported.

    A calibrated mask has its threshold.

    Raises:
        ConfigError: there are no settings, they are wrong, or a plug-in cannot be imported.
    """
    with blaming():
        settings = {} if library_of(folder) else vlp.checkpoint.read_settings(folder)
    import_plugins(settings.get("plugins", []), source=str(folder / SETTINGS))
    with blaming():
        return vlp.checkpoint.read_run(folder)
