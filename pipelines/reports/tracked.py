"""What was measured, found in MLflow: runs that have an evaluation among their artifacts."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.evaluate import OUTCOMES, EvaluationManifest
from pipelines.reports.measured import Measured, measured_in, pictures_in
from pipelines.tracking.delivery import load_store
from pipelines.tracking.runs import TrackedRun
from pipelines.tracking.server import page_of_run
from vlp.shards.manifest import MANIFEST

if TYPE_CHECKING:
    from pipelines.tracking.store import Store

EVALUATION, PICTURES = "evaluation", "pictures"
"""Folders of a run's artifacts."""


def found_runs(
    names: Sequence[str], machine: MachineConfig, *, experiment: str | None, where: str | None
) -> list[Measured]:
    """What was measured of some runs; a pipeline's stands for all of its methods.

    Args:
        names: ids of runs, or their names; () for none.
        experiment: of which runs are searched; None for all.
        where: filter in MLflow's language, whose runs are added; None adds none, unless an experiment is
            named alone.

    Raises:
        UserError: there is no such run, or none of them was measured.
    """
    load_store()
    from pipelines.tracking.store import Store

    store = Store(machine.mlflow_uri, experiment or "")
    runs = [found for name in names for found in _with_children(store.run(name), store)]
    if where is not None or (experiment and not names):
        runs += store.runs(where or "")
    timed = {run.parent: run for run in store.runs("tags.stage = 'step_times'")} if runs else {}
    measured = [
        _measured(run, timed.get(run.parent), folder, store, machine)
        for run in reversed(list({run.id: run for run in runs}.values()))
        if (folder := _fetched(run, store, machine)) is not None
    ]
    if not measured:
        raise UserError(
            f"none of the {len(runs)} runs found has an evaluation of this version; "
            "`vlp evaluate checkpoint=runs:/ID` measures one"
        )
    return measured


def _with_children(run: TrackedRun, store: "Store") -> list[TrackedRun]:
    """A run, or those that it is the parent of."""
    children = store.runs(f"tags.`mlflow.parentRunId` = '{run.id}'")
    return children or [run]


def _fetched(run: TrackedRun, store: "Store", machine: MachineConfig) -> Path | None:
    """A folder of the run's evaluation and pictures, fetched anew; None where it was not measured."""
    if not any(key.startswith("val/") for key in run.metrics):
        return None
    folder = machine.work_folder / "fetched" / "evaluations" / run.id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (EVALUATION, PICTURES):
        store.download(run.id, name, folder)
    there = folder / EVALUATION
    return folder if (there / MANIFEST).is_file() and (there / OUTCOMES).is_file() else None


def _measured(
    run: TrackedRun, timed: TrackedRun | None, folder: Path, store: "Store", machine: MachineConfig
) -> Measured:
    one = measured_in(folder / EVALUATION)
    return replace(
        one,
        origin=run.parent[:8] if run.parent else run.experiment_id,
        id=run.id[:8],
        seconds=_seconds(one, timed, folder / EVALUATION, store),
        link=page_of_run(machine, run.experiment_id, run.id),
        pictures=pictures_in(folder / PICTURES),
    )


def _seconds(one: Measured, timed: TrackedRun | None, folder: Path, store: "Store") -> float | None:
    """Training time, of the steps that were timed beside those of the same pipeline's other runs."""
    steps = EvaluationManifest.read(folder).step
    if not steps:
        return 0.0
    pace = timed.metrics.get(store.key(f"{one.model.method}/step_seconds")) if timed else None
    return None if pace is None else steps * pace
