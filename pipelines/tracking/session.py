"""What surrounds a command's work: its record, delivered to MLflow while it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import flat_params
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from vlp.shards.storage.folder import Folder

FIRST_DELIVERY_SECONDS = 20.0  # loading MLflow would hold up what starts meanwhile: Ray, the first step

Made = TypeVar("Made")


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
    name: str, stage: Callable[..., Made], config: Any, output: Path | Folder, *, machine: MachineConfig
) -> Made:
    """Run one stage outside of a pipeline, tracked as a run of the experiment `vlp`; returns its manifest."""
    label = f"{name}-{fingerprint(str(output.absolute()))[:8]}"
    with tracked(machine, experiment="vlp") as delivery:
        journal = Journal(delivery.root / label)
        journal.begin(name=name, tags=environment_tags() | {"stage": stage.__name__})
        journal.params(flat_params(config) | {"output": output.absolute()})
        with ending(journal):
            return stage(config, output, machine=machine, journal=journal)
