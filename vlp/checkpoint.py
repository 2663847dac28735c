"""A checkpoint, read: its settings, and the model that they and its weights make."""

import json
import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlp.core.config import naming
from vlp.core.plain import from_plain
from vlp.imports import library_of, set_weights
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST

MODEL, SETTINGS = "model.safetensors", "config.json"


def find_checkpoint(folder: Path) -> Path:
    """The folder if it is a checkpoint, or another library's model; or a finished run's last checkpoint.

    Raises:
        ValueError: it is none of these.
    """
    if library_of(folder):
        return folder
    manifest = folder / MANIFEST
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    checkpoint = folder / content.get("checkpoint", "")
    if not (checkpoint / MODEL).is_file():
        raise ValueError(
            f"{folder} is neither a checkpoint nor a finished run: no {MODEL}; nor a folder of open_clip, "
            "timm or transformers, which have a file of settings"
        )
    return checkpoint


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that a checkpoint, a run or a bad step was saved with, as plain values.

    Raises:
        ValueError: there are none.
    """
    file = folder / SETTINGS
    if not file.is_file():
        raise ValueError(f"{folder} has no {SETTINGS}")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


def read_run(folder: Path, *, plugins: Collection[str] = ()) -> RunConfig:
    """The run that a checkpoint, or another folder with settings, came from; a calibrated mask has its
    threshold. Of another library's model, the run that would make the same.

    Args:
        plugins: modules that may be imported if the settings name them as plug-ins; one that this process has
            imported already needs no permission.

    Raises:
        ValueError: the folder has no settings, they are wrong, or name a plug-in that may not be imported.
    """
    if library := library_of(folder):
        with naming(f"{folder}: "):
            return library.run_of(folder)
    settings = read_settings(folder)
    named = settings.get("plugins", [])
    if refused := [name for name in named if name not in plugins and name not in sys.modules]:
        raise ValueError(
            f"{folder / SETTINGS} names plug-ins, modules whose code would run here: {', '.join(refused)}; "
            f"where you trust them, allow them by plugins={tuple(named)!r}"
        )
    for name in named:
        import_module(name)
    with naming(f"{folder / SETTINGS}: "):
        return from_plain(RunConfig, settings)


def load_objective(folder: Path, config: RunConfig, device: torch.device) -> Objective:
    """The model of a checkpoint, ready for evaluation.

    Raises:
        ValueError: the weights cannot be read, or are those of other settings.
    """
    objective = config.build(config.vocabulary(config.tokenizer.build())).to(device)
    if library := library_of(folder):
        with naming(f"{folder}: "):
            set_weights(objective, folder, library)
        return objective.eval()
    try:
        objective.load_state_dict(load_weights(folder / MODEL, device))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else "it breaks off"
        raise ValueError(f"{folder / MODEL} does not hold the weights of its {SETTINGS}: {reason}") from error
    return objective.eval()


def load_weights(file: Path, device: torch.device) -> dict[str, Tensor]:
    """The weights of a model, by name."""
    return load_file(file, device=str(device))
