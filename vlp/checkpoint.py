"""A checkpoint, read: its settings, and the model that they and its weights make."""

import json
import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vlp.core.config import naming
from vlp.core.plain import from_plain
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST

MODEL, SETTINGS = "model.pt", "config.json"


def find_checkpoint(folder: Path) -> Path:
    """The folder itself if it is a checkpoint, or the last checkpoint of a finished run.

    Raises:
        ValueError: it is neither.
    """
    manifest = folder / MANIFEST
    content = json.loads(manifest.read_text()) if manifest.is_file() else {}
    checkpoint = folder / content.get("checkpoint", "")
    if not (checkpoint / MODEL).is_file():
        raise ValueError(f"{folder} is neither a checkpoint nor a finished run: no {MODEL}")
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
    threshold.

    Args:
        plugins: modules that may be imported if the settings name them as plug-ins; one that this process has
            imported already needs no permission.

    Raises:
        ValueError: the folder has no settings, they are wrong, or name a plug-in that may not be imported.
    """
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
    try:
        objective.load_state_dict(load_tensors(folder / MODEL, device))
    except Exception as error:  # what is no pickle of tensors ends in errors of any kind
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else "it breaks off"
        raise ValueError(f"{folder / MODEL} does not hold the weights of its {SETTINGS}: {reason}") from error
    return objective.eval()


def load_tensors(file: Path, device: torch.device) -> Any:
    """Tensors, and plain values, that torch saved; runs no code of the file."""
    return torch.load(file, map_location=device, weights_only=True)
