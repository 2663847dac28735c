"""What a format of exported models is: it says what it cannot hold, and writes a folder."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from vlp.core.registry import Registry
from vlp.export.card import write_card
from vlp.model import Model
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.weights.names import their_names

FORMATS = Registry()


class ExportFormat(ABC):
    """A library's way of keeping models."""

    name: ClassVar[str]
    """By which it is chosen."""
    usage: ClassVar[str]
    """Python that loads `{folder}`; part of the model card."""

    @abstractmethod
    def check(self, run: RunConfig) -> None:
        """Raise a ValueError that says why the format cannot hold the model of a run, if it cannot."""

    @abstractmethod
    def write(self, model: Model, folder: Path) -> None:
        """Write weights, configuration, preprocessing and tokenizer, as far as the format has them."""


def weights_for(format: str, objective: Objective) -> dict[str, Tensor]:
    """All weights by another library's names, with the positions that are fixed here, which it keeps, too."""
    fixed = {name: x for name, x in objective.named_buffers() if name.endswith("positions")}
    return their_names(objective.state_dict() | fixed, format=format, encoder=objective.image_encoder)


def format_of(name: str) -> ExportFormat:
    """The format of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in FORMATS:
        raise ValueError(f"format is {name!r}; valid: {', '.join(sorted(FORMATS))}")
    return FORMATS[name]()


def export(model: Model, folder: Path, *, format: str, results: str = "") -> None:
    """Write a model for another library, with a model card.

    Args:
        folder: made if it does not exist.
        format: a name of FORMATS.
        results: what was measured of it, as Markdown; part of the card.

    Raises:
        ValueError: there is no such format, or it cannot hold the model.
        ModuleNotFoundError: the library that writes it is not installed.
    """
    chosen, run = format_of(format), model.config
    try:
        chosen.check(run)
        folder.mkdir(parents=True, exist_ok=True)
        chosen.write(model, folder)
    except ValueError as error:
        raise ValueError(f"{format} cannot hold {run.name}: {error}") from error
    write_card(run, folder, usage=chosen.usage.format(folder=folder), results=results)
