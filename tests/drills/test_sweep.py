"""A sweep that is submitted to a cluster whose nodes share nothing but an object store."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.drills.recovery import PIPELINE
from tests.servers.installation import installed
from tests.servers.ports import free_port

STEPS, RATES = 40, [1e-3, 1e-2]
SWEEP: dict[str, Any] = {
    "name": "rates",
    "pipeline": "chaos.yaml",
    "run": "cluster_rgb",
    "overrides": {"training.length.steps": STEPS, "evaluation.every_steps": STEPS},
    "space": {"optimizer.lr": {"grid": RATES}},
    "metrics": {"val/tiny_world/text_to_image/recall@1": "max"},
    "search": {"name": "grid"},
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_trial_is_trained_and_tracked_wherever_its_workers_are() -> None:
    with tempfile.TemporaryDirectory(prefix="vlp-drill-") as folder, installed(Path(folder)) as installation:
        user = Path(folder) / "user"
        user.mkdir()
        serve = {"host": installation.ray.head.address, "port": free_port()}
        machine = {"num_workers": 1, "checkpoints": {"every_steps": STEPS // 2}, "log_every_steps": 10}
        data = {key: value for key, value in PIPELINE.items() if key != "machine"} | {"serve": serve}
        (user / "chaos.yaml").write_text(yaml.safe_dump(data))
        (user / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"machine": machine | installation.machine}))
        log = user / "log.txt"
        assert installation.submit("sweep", "sweep.yaml", log=log).wait(900) == 0, log.read_text()

        (sweep,) = (installation.storage / "sweeps").folders()
        assert "best.yaml" in (installation.storage / "sweeps" / sweep).names()
        client = MlflowClient(installation.mlflow.address)
        experiment = client.get_experiment_by_name("rates")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], "params.`optimizer.lr` != ''")
        trained = [run for run in runs if client.get_metric_history(run.info.run_id, "train/loss")]
        assert sorted(float(run.data.params["optimizer.lr"]) for run in trained) == RATES
        assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"FINISHED"}
