"""Weights of other models to start from.

Without them a ViT or Swin starts from timm's numbers: linear layers from a truncated normal distribution of
0.02, with biases of 0. MAE and BEiT set their own. CLIP's paper gives none for its image encoder, and
open_clip's starts from PyTorch's defaults, positions and class token from a normal distribution of D ** -0.5.
Here the start is one for the objectives, so that they are compared by what they learn. The text encoder, the
projections and the logit scale start as open_clip's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlp.core.config import StrictConfig
from vlp.core.messages import some_of
from vlp.encoders.blocks import Encoder
from vlp.encoders.image_encoder import Weights
from vlp.objectives import Objective
from vlp.weights.names import IMAGE_ENCODER, POSITIONS

FILES_OF_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class InitFrom(StrictConfig):
    """Weights to start from, and nothing else: the optimizer and the step are new."""

    path: Path
    """Folder of a checkpoint or a finished run, or of a model of timm, open_clip or transformers; or a file
    of weights, .safetensors or one that torch saved, of which `format` has to be told."""
    format: Literal["vlp", "timm", "open_clip", "huggingface"] | None = None
    """Whose names the weights have: ours, timm's, open_clip's, or those of transformers' CLIP and ViTMAE;
    None for what the folder's files say."""
    part: Literal["image_encoder", "model"] = "image_encoder"
    """What starts from them; `model` is everything that is trained, so the objective has to be the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format == "timm" and self.part == "model":
            raise ValueError("part must be image_encoder where format is timm, got model")


def weights_file(path: Path) -> Path:
    """The file itself, or the file of weights that a library wrote into a folder.

    Raises:
        ValueError: there is none.
    """
    if path.is_file():
        return path
    found = [path / name for name in FILES_OF_WEIGHTS if (path / name).is_file()]
    if not found:
        what = (
            f"{path} has none of {', '.join(FILES_OF_WEIGHTS)}" if path.is_dir() else f"no such file: {path}"
        )
        raise ValueError(what)
    return found[0]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file of safetensors, or in one that torch saved, training scripts' wrappers taken off.

    Raises:
        ValueError: it holds none.
    """
    try:
        content: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or ["it breaks off"])[0]
        raise ValueError(f"{file} holds no weights: {reason}") from error
    except EOFError as error:
        raise ValueError(f"{file} holds no weights: it breaks off") from error
    except Exception as error:  # bytes of another kind of file, read as a pickle, end in errors of any kind
        raise ValueError(
            f"{file} holds no weights: it is not a file of tensors that safetensors or torch saved"
        ) from error
    for wrapper in ("state_dict", "model"):
        content = content.get(wrapper, content) if isinstance(content, dict) else {}
    weights = {str(name).removeprefix("module."): x for name, x in content.items() if isinstance(x, Tensor)}
    if not weights:
        raise ValueError(f"{file} holds no weights")
    return weights


@torch.no_grad()
def initialize(objective: Objective, weights: Weights, *, part: str) -> None:
    """Set the trained weights of a model, or of its image encoder.

    Positions of patches are resized to its image size, those of words cut or added to for its context length.

    Raises:
        ValueError: weights are missing, left over, or of another shape.
    """
    prefix = IMAGE_ENCODER if part == "image_encoder" else ""
    changing = {id(buffer) for buffer in objective.image_encoder.changing_buffers()}
    buffers = {name: x for name, x in objective.named_buffers() if name.startswith(prefix)}
    fixed = {name: x for name, x in buffers.items() if id(x) not in changing}
    trained = {name: x for name, x in objective.named_parameters() if name.startswith(prefix)}
    trained |= {name: x for name, x in buffers.items() if id(x) in changing}
    given = {name: x for name, x in weights.items() if name.startswith(prefix)}
    given = _adapted(given, objective.encoders)
    shapes = [
        f"{name} is {tuple(given[name].shape)} and the model's {tuple(trained[name].shape)}"
        for name in trained.keys() & given.keys()
        if given[name].shape != trained[name].shape
    ]
    if POSITIONS in given and POSITIONS in fixed and not _is_same(given[POSITIONS], fixed[POSITIONS]):
        shapes.append(f"{POSITIONS} differs from the model's, which image_encoder.positions fixes")
    problems = (
        ("the model needs", sorted(trained.keys() - given.keys())),
        ("the model has no", sorted(given.keys() - trained.keys() - fixed.keys())),
        ("of another shape:", sorted(shapes)),
    )
    if told := [f"{what} {some_of(names)}" for what, names in problems if names]:
        raise ValueError("; ".join(told))
    for name, parameter in trained.items():
        parameter.copy_(given[name])


def _adapted(weights: Weights, encoders: Mapping[str, Encoder]) -> dict[str, Tensor]:
    """Those of encoders as these have them, and all others."""
    adapted = dict(weights)
    for attribute, encoder in encoders.items():
        begin = f"{attribute}."
        own = {name.removeprefix(begin): adapted.pop(name) for name in weights if name.startswith(begin)}
        adapted |= {begin + name: x for name, x in encoder.adapted(own).items()}
    return adapted


def _is_same(given: Tensor, fixed: Tensor) -> bool:
    return given.shape == fixed.shape and torch.allclose(given.to(fixed), fixed, atol=1e-4)
