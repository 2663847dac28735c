"""The MLflow of a team: users with passwords, PostgreSQL, and an object store behind the server."""

import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pyarrow.fs
import pytest
from mlflow import MlflowClient

from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.journal import Delivered, Journal
from tests.pipelines.runs import pretrain
from tests.servers.mlflow_server import PASSWORD, USER, Server
from tests.servers.object_store import ObjectStore, serving
from tests.servers.postgres import database
from vlp.run import RunConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # on a busy machine

STEPS = 40


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    credentials = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests"}
    for name, value in (credentials | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    with serving(os.environ) as store:
        store.bucket("mlflow")
        yield store


@pytest.fixture
def server(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with database(["mlflow", "mlflow_auth"]) as postgres:
        server = Server(postgres.address, store, tmp_path)
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        yield server
        server.stop()


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Work in a thread; a failure is raised at the end."""
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]


def test_a_run_is_delivered_once_to_a_server_that_goes_and_comes(
    server: Server, store: ObjectStore, tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(HTTPError, match="401"):
        urllib.request.urlopen(f"{server.address}/api/2.0/mlflow/experiments/search?max_results=1")
    run = tiny_run(training={"length": {"steps": STEPS}, "batch_size": 8})
    checkpoints = CheckpointSettings(every_steps=STEPS // 2, track="all", keep=9)
    machine = MachineConfig(num_workers=0, log_every_steps=1, checkpoints=checkpoints)
    journal = Journal(tmp_path / "journals" / "run")
    journal.begin(name="run", tags={})

    def train() -> None:
        pretrain(run, tmp_path / "run", machine=machine, journal=journal)
        journal.model_metrics({"val/acc1": 0.5}, step=STEPS, dataset={"name": "set", "digest": "f" * 64})
        journal.end("FINISHED")

    settings = {"tracking_uri": server.address, "experiment": "tests", "poll_seconds": 0.1}
    with Delivery(tmp_path / "journals", **settings) as delivery:
        with meanwhile(train):
            while Delivered.load(journal.folder, server.address).offset == 0:
                time.sleep(0.01)
            server.stop()
        missing = (journal.folder / "journal.jsonl").stat().st_size
        assert Delivered.load(journal.folder, server.address).offset < missing
        server.start()
        assert delivery.flush(600) == 0

    client = MlflowClient(server.address)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    points = client.get_metric_history(tracked.info.run_id, "train/loss")
    assert [point.step for point in points] == list(range(1, STEPS + 1))
    models = client.search_logged_models([tracked.info.experiment_id])
    assert sorted(model.tags["step"] for model in models) == [str(STEPS // 2), str(STEPS)]
    measured = [metric.key for model in models for metric in model.metrics or ()]
    assert "val/acc1" in measured, "PostgreSQL has less room for texts than SQLite"
    files = [file.path for file in client.list_artifacts(tracked.info.run_id, "images")]
    shown = [file for file in files if "masks" in file and file.endswith(".png")]
    assert len(shown) == 3, "at the start and after both checkpoints, each once"
    picture = Path(client.download_artifacts(tracked.info.run_id, "pictures/masks.png", str(tmp_path)))
    assert picture.read_bytes() == (tmp_path / "run" / "masks.png").read_bytes()
    filesystem, root = pyarrow.fs.FileSystem.from_uri(
        f"s3://mlflow/artifacts?endpoint_override={store.address}"
    )
    kept = filesystem.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
    assert sum(file.base_name == "model.safetensors" for file in kept) == 2
