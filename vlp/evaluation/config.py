"""What a model is measured on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from vlp.core.config import AtLeast, StrictConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(StrictConfig):
    """What a model is measured on; what is not given is not measured."""

    retrieval: Mapping[str, Path] = field(default_factory=dict)
    """Set's name, the first part of its metrics -> Parquet file with columns `image` and `captions`."""
    classification: Mapping[str, Path] = field(default_factory=dict)
    """Set's name -> folder of train.parquet and test.parquet (`image`, `label`), and meta.json (`classes`,
    `templates`)."""
    every_steps: Annotated[int, AtLeast(1)] | None = None
    """Also measure during training, this often; None measures only the finished model."""
    num_neighbours: Annotated[int, AtLeast(1)] = 20
    """k of the kNN classifier."""
    shots: tuple[Annotated[int, AtLeast(1)], ...] = (10,)
    """Labelled images per class of the few-shot classifier, one or more numbers; () for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("retrieval", "classification"):
            for name in getattr(self, key):
                if not re.fullmatch(r"\w[\w-]*", name):
                    raise ValueError(f"{key} must be by names of letters, digits, _ and -, got {name!r}")
