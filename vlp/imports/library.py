"""What a library's folder of a model is: it is recognized by its files, and becomes the settings of a run."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlp.core.normalization import MEAN_STD, Normalization
from vlp.core.registry import Registry
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.weights.initialization import initialize, read_weights, weights_file
from vlp.weights.names import our_names

LIBRARIES = Registry()


class Library(ABC):
    """A library's way of keeping a model in a folder."""

    name: ClassVar[str]
    """As `init_from.format` calls it."""

    @abstractmethod
    def recognizes(self, folder: Path) -> bool:
        """Whether the folder was written by the library."""

    @abstractmethod
    def run_of(self, folder: Path) -> RunConfig:
        """Settings that make the same model, and preprocess images and texts alike.

        Raises:
            ValueError: there are none; says what differs.
        """


def library_of(folder: Path) -> Library | None:
    """Whose folder it is; None for one of ours, or of nobody's."""
    return next(
        (library for library in (cls() for cls in LIBRARIES.values()) if library.recognizes(folder)), None
    )


def set_weights(objective: Objective, folder: Path, library: Library) -> None:
    """Set all weights of a model made by `Library.run_of`.

    Raises:
        ValueError: there are none in the folder, or those of another model.
    """
    weights = read_weights(weights_file(folder))
    initialize(
        objective, our_names(weights, format=library.name, encoder=objective.image_encoder), part="model"
    )


def read_json(file: Path) -> dict[str, Any]:
    """A file of settings; {} where there is none.

    Raises:
        ValueError: it is not JSON.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def normalization_of(mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalization:
    """The name of a mean and a deviation, CLIP's where none is given.

    Raises:
        ValueError: they have none.
    """
    if mean is None or std is None:
        return "clip"
    for name, known in MEAN_STD.items():
        if all(abs(a - b) < 1e-3 for a, b in zip((*mean, *std), (*known[0], *known[1]), strict=True)):
            return name  # pyright: ignore[reportReturnType]
    raise ValueError(f"images are normalized by a mean of {list(mean)}, and here by CLIP's or ImageNet's")
