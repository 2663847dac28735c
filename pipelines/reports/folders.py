"""What was measured, found in folders of results: of pipelines, runs and evaluations."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os.path import relpath
from pathlib import Path
from typing import NamedTuple, Self

from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.evaluate import OUTCOMES
from pipelines.reports.measured import Measured, measured_in
from pipelines.tracking.journal import Delivered
from pipelines.tracking.server import page_of_run
from vlp.shards.manifest import MANIFEST

INDEX = "measured.json"
"""In the folder of a pipeline: what its report is made of."""
EVALUATION = Path("checkpoints") / "evaluation"
"""In the folder of a run: what `vlp evaluate` writes unless it is told otherwise."""
MASKS = "masks.png"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of a pipeline, by folders relative to the pipeline's."""

    evaluation: str
    run: str
    journal: str
    """The record of the run."""
    seconds: float | None
    """Of training, as `Measured` has it."""


class Index(NamedTuple):
    """What a pipeline has measured."""

    baseline: str | None
    models: Sequence[Entry]

    def write(self, folder: Path) -> None:
        """Enter it in the pipeline's folder."""
        content = {"baseline": self.baseline, "models": [asdict(one) for one in self.models]}
        (folder / INDEX).write_text(json.dumps(content, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The inverse.

        Raises:
            UserError: the file is broken.
        """
        try:
            content = json.loads((folder / INDEX).read_text())
            return cls(content["baseline"], [Entry(**one) for one in content["models"]])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / INDEX} is broken; run the pipeline again, which writes it") from error

    def measured(self, folder: Path) -> Iterator[tuple[Entry, Measured]]:
        """The models, each with the address of its evaluation as seen from a folder in the pipeline's."""
        for entry in self.models:
            one = measured_in(folder / entry.evaluation)
            masks = folder / entry.run / MASKS
            pictures = {"masks": masks} if masks.is_file() else {}
            yield (
                entry,
                replace(
                    one,
                    origin=folder.name,
                    seconds=entry.seconds,
                    pictures=pictures | dict(one.pictures),
                    link=f"../{entry.evaluation}",
                ),
            )


def entry_of(folder: Path, *, evaluation: Path, run: Path, journal: Path, seconds: float | None) -> Entry:
    """A model of a pipeline in a folder."""
    places = (relpath(place, folder) for place in (evaluation, run, journal))
    return Entry(**dict(zip(("evaluation", "run", "journal"), places, strict=True)), seconds=seconds)


def found_in(folder: Path, machine: MachineConfig) -> list[Measured]:
    """Everything that was measured in a folder of results.

    Raises:
        UserError: it is none of a pipeline, a run or an evaluation, or its evaluation is not finished.
    """
    if (folder / INDEX).is_file():
        index = Index.read(folder)
        return [_tracked(entry, one, folder, machine) for entry, one in index.measured(folder)]
    for place, masks in ((folder, None), (folder / EVALUATION, folder / MASKS)):
        if (place / MANIFEST).is_file() and (place / OUTCOMES).is_file():
            one = measured_in(place)
            pictures: Mapping[str, Path] = {"masks": masks} if masks and masks.is_file() else {}
            return [
                replace(
                    one,
                    origin=folder.name,
                    link=place.absolute().as_uri(),
                    pictures=pictures | dict(one.pictures),
                )
            ]
    raise UserError(
        f"{folder} is not a folder of results that a report is made of: a pipeline that was run, a run or an "
        f"evaluation; `vlp evaluate checkpoint={folder}` measures a run"
    )


def _tracked(entry: Entry, one: Measured, folder: Path, machine: MachineConfig) -> Measured:
    """With the address of its page in MLflow, or else of its folder."""
    place = Delivered.load(folder / entry.journal, machine.mlflow_uri)
    if place.run_id and place.experiment_id:
        return replace(one, link=page_of_run(machine, place.experiment_id, place.run_id))
    return replace(one, link=(folder / entry.evaluation).absolute().as_uri())
