"""A population on Ray, whose trials share their first steps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from pipelines.checkpoints.checkpoint import read_run
from pipelines.checkpoints.store import RunManifest
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import resolve
from tests.pipelines.sweeps.tiny import METRIC, PIPELINE

SWEEP: dict[str, Any] = {
    "name": "population",
    "run": "flip",
    "overrides": {
        "evaluation.every_steps": 10,
        "mask.mask_ratio": {"start": 0.25, "end": 0.5, "begin": 0.25, "finish": 0.5},
    },
    "space": {"mask.mask_ratio.end": {"uniform": [0.4, 0.9]}},
    "metrics": {METRIC: "max"},
    "num_trials": 2,
    "scheduler": {"name": "pbt", "perturbation_interval": 20, "quantile_fraction": 0.5},
    "from_step": 10,
}


def train(folder: Path, output: Path, *, start: Path | None = None) -> str:
    """Train the run of a folder in this process; digest of its weights."""
    machine, journal = MachineConfig(num_workers=0), Journal(output / "journal")
    journal.begin(name="alone", tags={})
    run = resolve(read_run(folder), machine, start=start)
    return pretrain(run, output, machine=machine, journal=journal).digest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_worse_trial_ends_with_what_the_better_ones_checkpoint_comes_to(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(PIPELINE))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"pipeline": str(tmp_path / "tiny.yaml")}))
    command = [sys.executable, "-m", "pipelines", "sweep", str(tmp_path / "sweep.yaml")]
    command += [f"machine.storage={tmp_path / 'results'}", "machine.data_workers=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    (sweep,) = (tmp_path / "results").glob("sweeps/population-*")
    rows = {row["number"]: row for row in json.loads((sweep / "report.json").read_text())}
    (better,) = [number for number, row in rows.items() if not row["copies"]]
    assert rows[1 - better]["copies"] == [{"step": 20, "donor": better}]
    kept, copied = sweep / "trials" / f"000{better}", sweep / "trials" / f"000{1 - better}-from20"
    digests = [RunManifest.read(folder).digest for folder in (kept, copied)]
    # With its shared steps, and the pause, as one that was trained alone.
    assert train(kept, tmp_path / "alone") == digests[0]
    assert read_run(copied).mask != read_run(kept).mask
    start = kept / "checkpoints" / "step_0000020"
    assert train(copied, tmp_path / "again", start=start) == digests[1] != digests[0]

    client = MlflowClient(f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("population")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    trials = {run.data.tags["trial_id"]: run for run in runs if "trial_id" in run.data.tags}
    assert len(trials) == sum("trial_id" in run.data.tags for run in runs) == 3
    assert {run.info.status for run in trials.values()} == {"FINISHED"}
    assert trials[f"000{1 - better}"].data.tags["begins_from"] == f"000{better}/checkpoints/step_0000020"
