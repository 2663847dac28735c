"""What MLflow has of a training beside its curves: pictures with steps, machine load, and the log."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines.checkpoints.checkpoint import write_settings
from pipelines.commands.main import main
from pipelines.config.settings import to_dict
from pipelines.tracking.delivery import Delivery
from pipelines.training.machine_load import NAMES
from tests.paths import REPOSITORY
from vlp.run import RunConfig

MIX = {"name": "cluster", "feature": "mix", "threshold": 0.5, "anchor_ratio": 0.1}
SMALL = ("machine.num_workers=0", "machine.data_workers=0", "machine.log_every_steps=1")
TWO_NODES = """
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from pipelines.checkpoints.checkpoint import read_run
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain

folder = Path(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
for number in (2, 3):  # Ray Train tells nodes by their addresses
    cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}")
machine = MachineConfig(num_workers=2, ray_address=cluster.address, log_every_steps=1)
journal = Journal(folder / "journals" / "run")
journal.begin(name="run", tags={})
pretrain(read_run(folder), folder / "run", machine=machine, journal=journal)
journal.end("FINISHED")
ray.shutdown()
cluster.shutdown()
"""


def vlp(*arguments: object) -> None:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output


def found(client: MlflowClient, name: str) -> Run:
    """The run of a name, of whichever experiment."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    return run


def pictures(client: MlflowClient, run: Run) -> set[tuple[str, int]]:
    """Name and step of each."""
    files = " ".join(file.path for file in client.list_artifacts(run.info.run_id, "images"))
    return {(name, int(step)) for name, step in re.findall(r"view\W(\w+)\Wstep\W(\d+)\Wtimestamp", files)}


@pytest.fixture
def client(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> MlflowClient:
    """Of a store with a count of tokens and a training that has its table."""
    run = tiny_run(mask=MIX, objective={"name": "superclass"})
    storage, table = f"machine.storage={tmp_path}", tmp_path / "df"
    tokenizer = ("tokenizer.name=clip_bpe", "tokenizer.context_length=16")
    vlp("docfreq", f"shards={run.data.shards}", *tokenizer, *SMALL, storage, "-o", table)
    settings = to_dict(run)
    settings["data"]["document_frequency"] = str(table / "document_frequency.parquet")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    vlp("pretrain", tmp_path / "tiny.yaml", *SMALL, storage)
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_a_training_has_pictures_load_and_log(client: MlflowClient, tmp_path: Path) -> None:
    """The frequency curve once, as it does not change; alpha and threshold over the whole training."""
    assert ("frequencies", 0) in pictures(client, found(client, "docfreq"))
    run = found(client, "tiny")
    shown = pictures(client, run)
    assert {step for name, step in shown if name == "frequencies"} == {0}
    for name in ("masks", "schedules"):
        assert {step for one, step in shown if one == name} == {0, 3}
    assert {"view/alpha", "view/threshold"} <= run.data.metrics.keys()
    assert {f"system/{name}" for name in NAMES} <= run.data.metrics.keys()
    points = client.get_metric_history(run.info.run_id, "system/system_memory_usage_megabytes")
    assert [point.step for point in points] == [1, 2, 3]
    assert all(point.value > 0 for point in points)
    log = Path(client.download_artifacts(run.info.run_id, "log.txt", str(tmp_path))).read_text()
    assert "[pretrain tiny] 3/3 steps" in log


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on a busy machine
def test_each_node_has_its_load(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    write_settings(tmp_path, tiny_run())
    command = [sys.executable, "-c", TWO_NODES, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with Delivery(tmp_path / "journals", tracking_uri=uri, experiment="tests") as delivery:
        assert delivery.flush(240) == 0
    metrics = found(MlflowClient(uri), "run").data.metrics
    loads = {key for key in metrics if key.startswith("system/")}
    assert loads == {f"system/node_{number}/{name}" for number in (0, 1) for name in NAMES}
