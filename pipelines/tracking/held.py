"""Checkpoints that MLflow holds, fetched by their addresses."""

import re
import shutil
from pathlib import Path

from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.tracking.delivery import load_store
from vlp.checkpoint import MODEL
from vlp.shards import published
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.whole import writing_folder

ADDRESS = re.compile(r"(runs|models):/+(?=[^/])")


def held(checkpoint: Path, machine: MachineConfig) -> Path:
    """The folder of a checkpoint, fetched from MLflow where its address is runs:/ or models:/, and from the
    storage where another machine has published it.

    A run alone stands for its last model, RUN_ID/STEP for that of a step.

    Raises:
        UserError: MLflow does not have it.
    """
    if not ADDRESS.match(str(checkpoint)):
        there = machine.published(checkpoint)
        if there and not checkpoint.exists():
            _bring(there, checkpoint)
        return checkpoint
    load_store()
    from pipelines.tracking.store import fetch

    address = ADDRESS.sub(r"\1:/", str(checkpoint))
    place = machine.work_folder / "fetched" / fingerprint(address)[:16] / "checkpoint"
    with writing_folder(place) as folder:
        found = fetch(address, machine.mlflow_uri, folder / "all")
        weights = next(found.rglob(MODEL), None)
        if weights is None:
            raise UserError(
                f"checkpoint: {address} is not a model of ours: it has no {MODEL}; choose another"
            )
        for file in weights.parent.iterdir():
            file.rename(folder / file.name)
        shutil.rmtree(folder / "all")
    return place


def _bring(there: Folder, checkpoint: Path) -> None:
    """A run's folder, by the list of what was published of it; or one of its checkpoints, by its manifest."""
    if published.fetch(there, checkpoint) or MANIFEST not in there.names():
        return
    with writing_folder(checkpoint) as folder:
        for name in there.names():
            published.take(there, folder / name)
