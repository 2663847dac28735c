"""A pipeline in an object store goes on from there on any machine, to what one machine alone makes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient

from pipelines.checkpoints.store import list_saved
from pipelines.commands.main import main
from tests.paths import REPOSITORY
from tests.pipelines.stages import digests
from tests.servers.object_store import ObjectStore
from tests.servers.ports import free_port
from tests.waiting import wait_until
from vlp.shards.contents import ShardsManifest
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

PIPELINE: dict[str, Any] = {
    "name": "tiny",
    "corpus": {"name": "tiny_world", "num_train": 96, "num_heldout": 16, "image_size": 32},
    "serve": {"port": free_port()},
    "download": {"image_size": 32, "number_sample_per_shard": 32},
    "common": {
        "image_encoder": {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "num_heads": 2},
        "training": {"length": {"steps": 150}, "batch_size": 16, "precision": "fp32"},
        "lr_schedule": {"warmup_steps": 2},
    },
    # It needs the frequency table, too, whose place differs between machines.
    "runs": [{"base": str(REPOSITORY / "conf/run/superclass.yaml"), "objective": {"idf": "offline"}}],
    "machine": {
        "num_workers": 0,
        "data_workers": 0,
        "matmul": "pytorch",
        "checkpoints": {"every_steps": 10},
        "log_every_steps": 50,
    },
}


DATA = {key: value for key, value in PIPELINE.items() if key != "machine"}
SWEEP: dict[str, Any] = {
    "name": "rates",
    "run": "superclass",
    "overrides": {"evaluation.every_steps": 50},
    "space": {"optimizer.lr": {"grid": [1e-3, 1e-2]}},
    "metrics": {"val/tiny_world/knn/acc1": "max"},
    "search": {"name": "grid"},
    "machine": PIPELINE["machine"] | {"num_workers": 1},
}


class Machine:
    """One with a disk of its own, on which the pipeline is run, or the sweep."""

    def __init__(self, folder: Path, storage: Folder | None = None, *, command: str = "run") -> None:
        folder.mkdir()
        self.work, self.log = folder / "work", folder / "log.txt"
        pipeline, sweep = folder / "tiny.yaml", folder / "sweep.yaml"
        pipeline.write_text(yaml.safe_dump(PIPELINE if command == "run" else DATA))
        sweep.write_text(yaml.safe_dump(SWEEP | {"pipeline": str(pipeline)}))
        file = {"run": pipeline, "sweep": sweep}[command]
        settings = [f"machine.storage={storage or self.work}", f"machine.work={self.work}"]
        with self.log.open("w") as log:
            words = [sys.executable, "-m", "pipelines", command, str(file), *settings]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def finish(self) -> str:
        assert self.process.wait(300) == 0, self.log.read_text()
        return self.log.read_text()

    def tracked(self) -> set[str]:
        """Names of what MLflow shows there."""
        client = MlflowClient(f"sqlite:///{self.work / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("tiny")
        assert experiment is not None
        return {run.info.run_name or "" for run in client.search_runs([experiment.experiment_id])}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_cut_goes_on_on_another_machine_and_what_is_done_is_done_for_all(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    alone = Machine(tmp_path / "alone")
    alone.finish()
    expected = digests(open_folder(alone.work) / "tiny")

    storage = object_store.bucket()
    lost = Machine(tmp_path / "lost", storage)
    trained = storage / "tiny" / "pretrain"
    with lost.process:
        wait_until(
            lambda: any(list_saved(trained / name / "checkpoints") for name in trained.folders()),
            seconds=300,
        )
        lost.process.kill()
    assert len(digests(storage / "tiny")) == 2, "the training is not over"

    second = Machine(tmp_path / "second", storage)
    said = second.finish()
    assert "going on from the checkpoint after step" in said
    assert said.count("] unchanged: ") == 3, "corpus, shards and frequencies are there"
    assert digests(storage / "tiny") == expected
    assert {file.parent.name for file in second.work.rglob("*.tar")} == {"cache"}

    third = Machine(tmp_path / "third", storage)
    said = third.finish()
    assert "] done in " not in said
    assert said.count("] unchanged: ") == said.count("] took ") == 7
    assert third.tracked() == second.tracked() == alone.tracked()


def trials(storage: Folder) -> dict[str, str]:
    """Digests of the weights of a sweep's trials, by trial."""
    (sweep,) = (storage / "sweeps").folders()
    made = storage / "sweeps" / sweep / "trials"
    return {name: (made / name).read_json("manifest.json")["digest"] for name in made.folders()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_cut_goes_on_on_another_machine(object_store: ObjectStore, tmp_path: Path) -> None:
    alone = Machine(tmp_path / "alone", command="sweep")
    alone.finish()
    storage = object_store.bucket()
    lost = Machine(tmp_path / "lost", storage, command="sweep")
    with lost.process:
        wait_until(lambda: "step 100, " in lost.log.read_text(), seconds=300)
        lost.process.kill()
    second = Machine(tmp_path / "second", storage, command="sweep")
    said = second.finish()
    assert "[sweep] going on with" in said
    assert trials(open_folder(second.work)) == trials(open_folder(alone.work))
    made = [yaml.safe_load(next(one.work.glob("sweeps/*/best.yaml")).read_text()) for one in (alone, second)]
    for settings in made:
        del settings["data"], settings["evaluation"]  # which lie elsewhere
    assert made[0] == made[1]


@contextmanager
def read_only_store() -> Iterator[str]:
    """Address of a store that lets nobody write."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.do_PUT()

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

        def do_GET(self) -> None:
            self._answer(200, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("bucket", "kind", "reason"),
    [
        ("nowhere", "store", "there is no such bucket; create it"),
        ("bucket", "nothing", "the store does not answer; check the network"),
        ("bucket", "read-only", "the store refuses the credentials; set AWS_ACCESS_KEY_ID"),
    ],
)
@pytest.mark.parametrize("command", ["run {file}", "docfreq shards={folder} -o frequencies"])
def test_a_storage_that_cannot_be_written_is_one_line_before_any_work(
    command: str,
    bucket: str,
    kind: str,
    reason: str,
    object_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(PIPELINE))
    ShardsManifest.of([], identity="none").write(tmp_path)
    with read_only_store() as refusing:
        stores = {"store": object_store.address, "nothing": "http://127.0.0.1:9", "read-only": refusing}
        storage = f"s3://{bucket}/vlp?endpoint_override={stores[kind]}"
        arguments = command.format(file="tiny.yaml", folder=tmp_path).split()
        result = CliRunner().invoke(main, [*arguments, f"machine.storage={storage}", "machine.work=work"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"vlp: machine.storage: cannot write to s3://{bucket}/vlp")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.yaml", "manifest.json"}
