"""What surrounds a command's work: its record, delivered to MLflow while it runs."""

from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import flat_params
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from vlp.shards.manifest import Manifest
from vlp.shards.storage.folder import Folder

FIRST_DELIVERY_SECONDS = 20.0  # loading MLflow would hold up what starts meanwhile: Ray, the first step

Made = TypeVar("Made", bound=Manifest)
MadeByWork = TypeVar("MadeByWork", bound=Manifest, covariant=True)


class Work(Protocol[MadeByWork]):
    """Makes a stage's output in a folder, and returns its manifest."""

    def __call__(self, output: Any, *, journal: Journal) -> MadeByWork: ...


def tracked(machine: MachineConfig, *, experiment: str) -> Delivery:
    """Context in which the journals of an experiment are delivered to MLflow."""
    root = (machine.storage / "journals" / experiment).absolute()
    return Delivery(
        root,
        tracking_uri=machine.mlflow_uri,
        experiment=experiment,
        first_after_seconds=FIRST_DELIVERY_SECONDS,
    )


def standalone(
    stage: str,
    work: Work[Made],
    output: Path | Folder,
    *,
    settings: Any,
    machine: MachineConfig,
    title: str = "",
) -> Made:
    """Do one stage outside of a pipeline, tracked as a run of the experiment `vlp`; returns its manifest.

    Args:
        settings: dataclass that is tracked as the stage's parameters.
        title: name of the tracked run, if not the stage's.
    """
    label = f"{title or stage}-{fingerprint(str(output.absolute()))[:8]}"
    with tracked(machine, experiment="vlp") as delivery:
        journal = Journal(delivery.root / label)
        journal.begin(name=title or stage, tags=environment_tags() | {"stage": stage})
        journal.params(flat_params(settings) | {"output": output.absolute()})
        with ending(journal):
            return work(output, journal=journal)
