"""What surrounds a command's work: its record, delivered to MLflow while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import flat_params
from pipelines.config.storage import check_storage
from pipelines.tracking.boards import boards
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.tracking.log import logged
from pipelines.tracking.published import published_files
from pipelines.tracking.server import browse
from vlp.shards.manifest import Manifest
from vlp.shards.published import fetch, publish, put
from vlp.shards.storage.address import open_folder
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
    check_storage(machine)
    root = (machine.work_folder / "journals" / experiment).absolute()
    others = [name for name in machine.tracking if name != "mlflow"]
    delivery = Delivery(
        root,
        tracking_uri=machine.mlflow_uri,
        experiment=experiment,
        first_after_seconds=FIRST_DELIVERY_SECONDS,
    )
    with published_files(root, machine.published(root)), delivery, boards(others, root, machine.work_folder):
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
    check_storage(machine)
    label = f"{title or stage}-{fingerprint(str(output.absolute()))[:8]}"
    journal = Journal((machine.work_folder / "journals" / EXPERIMENT / label).absolute())
    with alone(journal.folder, output=output), tracked(machine, experiment=EXPERIMENT):
        journal.begin(name=title or stage, tags=environment_tags() | {"stage": stage})
        journal.params(flat_params(settings) | {"output": output.absolute()})
        with ending(journal), logged(journal):
            return _published(work, output, journal, machine)


def _published(work: Work[Made], output: Path | Folder, journal: Journal, machine: MachineConfig) -> Made:
    """Work that goes on from what other machines have published, and is published itself."""
    here = open_folder(output).local_path
    there = machine.published(here) if here else None
    if here is None or there is None:
        return work(output, journal=journal)
    fetch(there, here)
    made = work(output, journal=journal)
    if here.is_dir():
        publish(here, there)
    else:
        put(here, there.parent)
    print(f"published: {there}", flush=True)
    return made
