"""The features of large sets, encoded by workers, each part of a set once for a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import vlp
from pipelines.checkpoints.checkpoint import load_model, read_run
from pipelines.compute.worker_process import Row
from pipelines.compute.workers import open_workers
from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.plugins import with_digests
from pipelines.config.settings import to_dict
from vlp.data.image_files import ImageFile
from vlp.data.image_tables import ImageTable, Part
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.feature_store import FeatureStore
from vlp.metrics.outcomes import NoOutcomesError
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.digests import Digests
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder

WEIGHTS = (".safetensors", ".bin")
"""Ends of the names of files of weights, of ours and of other libraries."""


def feature_folder(machine: MachineConfig) -> Folder:
    """Where what models gave of images and texts is kept, for all machines."""
    return machine.in_storage(machine.work_folder / "features").absolute()


def digests(machine: MachineConfig) -> Digests:
    """Of files, as they are remembered there."""
    return Digests(feature_folder(machine) / "digests")


def open_store(checkpoint: Path, folder: Folder) -> FeatureStore:
    """What the model of a checkpoint gave so far of whatever images and texts."""
    identify, run = Digests(folder / "digests").of, read_run(checkpoint)
    settings = with_digests(to_dict(run))
    decides = [settings.get(key) for key in ("plugins", "image_encoder", "objective", "tokenizer")]
    here = LocalFolder(checkpoint)
    weights = [identify(here, name) for name in sorted(here.names()) if name.endswith(WEIGHTS)]
    model = fingerprint(vlp.__version__, decides, run.data.normalization, weights)
    return FeatureStore(folder / model[:16], model=model, identify=identify)


def make_embedder(objective: Objective, run: RunConfig, store: FeatureStore | None = None) -> Embedder:
    """What encodes images and texts by the model of a run."""
    return Embedder(
        objective,
        run.tokenizer.build(),
        image_size=run.image_encoder.image_size,
        normalization=run.data.normalization,
        store=store,
    )


def embed(checkpoint: Path, evaluation: EvaluationConfig, *, machine: MachineConfig) -> None:
    """Have the workers encode what is not there yet of the sets that have more than one part.

    A set of one part takes less time than workers take to start: who measures encodes it.
    """
    rows = _missing(checkpoint, evaluation, open_store(checkpoint, feature_folder(machine)))
    if not rows:
        return
    num_images = sum(row["stop"] - row["start"] for row in rows)
    print(f"[evaluate] encoding {num_images:,} images in {len(rows)} parts", flush=True)
    workers = open_workers(machine)
    arguments = (checkpoint.absolute(), feature_folder(machine))
    for done in workers.map(PartEncoder, arguments, rows, num_gpus=int(machine.use_gpu)):
        if done["refused"]:
            raise UserError(f"{checkpoint} cannot be measured: {done['refused']}")


def _missing(checkpoint: Path, evaluation: EvaluationConfig, store: FeatureStore) -> list[Row]:
    """A row for every part of a large table that a protocol reads and the store lacks."""
    run = read_run(checkpoint)
    measured = evaluation.measurements(run.objective, run.tokenizer)
    tables = dict.fromkeys(table for data, protocol in measured for table in protocol.embeds(data))
    pairs = [(table, part) for table in tables for part in _of_large(table)]
    lacking = set(store.missing(part for _, part in pairs))
    return [_row(table, part) for table, part in pairs if part in lacking]


def _of_large(table: ImageTable) -> list[Part]:
    """The parts of a table that has more than one."""
    parts = table.parts()
    return parts if len(parts) > 1 else []


def _row(table: ImageTable, part: Part) -> Row:
    place = str(open_folder(table.place).absolute())
    file, (start, stop) = table.files.index(part.file), (part.rows.start, part.rows.stop)
    return {"place": place, "column": table.column, "file": file, "start": start, "stop": stop}


class PartEncoder:
    """A worker: the model of a checkpoint, which encodes a part of a table at a time."""

    def __init__(self, checkpoint: Path, folder: Folder) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = make_embedder(*load_model(checkpoint, device), open_store(checkpoint, folder))
        self.model.objective.eval()
        self._files: dict[tuple[str, str], Sequence[ImageFile]] = {}

    def __call__(self, row: Row) -> dict[str, Any]:
        """The row, with why the model is refused, if it is."""
        table = row["place"], row["column"]
        if table not in self._files:
            self._files[table] = ImageTable(open_folder(table[0]), table[1]).files
        try:
            self.model.fill(Part(self._files[table][row["file"]], range(row["start"], row["stop"])))
        except NoOutcomesError as error:
            return {**row, "refused": str(error)}
        return {**row, "refused": ""}
