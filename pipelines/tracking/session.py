"""What surrounds a command's work: its record, delivered to MLflow while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import flat_params
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.tracking.log import logged
from pipelines.tracking.server import browse
from vlp.shards.manifest import Manifest
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.lock import locked_if_free

EXPERIMENT = "vlp"
"""Of stages outside of a pipeline."""
FIRST_DELIVERY_SECONDS = 20.0  # loading MLflow would hold up what starts meanwhile: Ray, the first step

Made = TypeVar("Made", bound=Manifest)
MadeByWork = TypeVar("MadeByWork", bound=Manifest, covariant=True)


class Work(Protocol[MadeByWork]):
    """Makes a stage's output in a folder, and returns its manifest."""

    def __call__(self, output: Any, *, journal: Journal) -> MadeByWork: ...


@contextmanager
def alone(folder: Path, *, output: Path | Folder) -> Iterator[None]:
    """Keep other commands out of a folder that one writes.

    Args:
        output: what they would write, too; said to the user.

    Raises:
        UserError: another one is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked_if_free(folder / ".lock") as is_free:
        if not is_free:
            raise UserError(
                f"{output}: another command writes there; wait for its end or choose another folder"
            )
        yield


@contextmanager
def tracked(machine: MachineConfig, *, experiment: str) -> Iterator[Delivery]:
    """Context in which the journals of an experiment are delivered to MLflow; says at last where they are."""
    delivery = Delivery(
        (machine.storage / "journals" / experiment).absolute(),
        tracking_uri=machine.mlflow_uri,
        experiment=experiment,
        first_after_seconds=FIRST_DELIVERY_SECONDS,
    )
    with delivery:
        yield delivery
    print(f"browse:  {browse(machine, delivery.experiment_id)}", flush=True)


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
    journal = Journal((machine.storage / "journals" / EXPERIMENT / label).absolute())
    with alone(journal.folder, output=output), tracked(machine, experiment=EXPERIMENT):
        journal.begin(name=title or stage, tags=environment_tags() | {"stage": stage})
        journal.params(flat_params(settings) | {"output": output.absolute()})
        with ending(journal), logged(journal):
            return work(output, journal=journal)
