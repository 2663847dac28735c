"""`make chaos`: a pipeline of a cluster loses one part after another; what was lost, and how long each took.

The cluster is one of `tests.servers.installation`. Weights, numbers and pictures are compared with those of
the same pipeline on one machine that loses nothing.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from mlflow import MlflowClient

from pipelines.checkpoints.store import list_saved
from pipelines.tracking.journal import Delivered, Journal
from tests.paths import REPOSITORY
from tests.pipelines.stages import digests
from tests.servers.installation import WORK, Installation, installed
from tests.servers.ports import free_port
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

STEPS, EVERY, OUTAGE_SECONDS = 3000, 50, 15.0
PATIENCE_SECONDS = 1200.0
RUN = "cluster_rgb"
PIPELINE: dict[str, Any] = {
    "name": "chaos",
    "corpus": {"name": "tiny_world", "num_train": 400, "num_heldout": 40, "image_size": 32},
    "download": {"image_size": 32, "number_sample_per_shard": 40},
    "common": {
        "image_encoder": {"image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "num_heads": 2},
        "training": {"length": {"steps": STEPS}, "batch_size": 32, "precision": "fp32"},
        "lr_schedule": {"warmup_steps": 20},
    },
    "runs": [
        {
            "base": str(REPOSITORY / f"conf/run/{RUN}.yaml"),
            "mask": {"anchor_ratio": 0.1},
            "objective": {"embed_dim": 32, "text_encoder": {"width": 32, "depth": 1, "num_heads": 2}},
        }
    ],
    "machine": {
        "num_workers": 2,
        "data_workers": 2,
        "matmul": "pytorch",
        "checkpoints": {"every_steps": EVERY},
        "log_every_steps": 10,
        "recovery": {"max_failures": 10},
    },
}


class Pipeline:
    """`vlp submit run`, by the same command again and again, as its user would."""

    def __init__(self, installation: Installation) -> None:
        self.at = installation
        user = installation.folder / "user"
        user.mkdir()
        machine = PIPELINE["machine"] | installation.machine
        serve = {"host": installation.ray.head.address, "port": free_port()}
        (user / "chaos.yaml").write_text(yaml.safe_dump(PIPELINE | {"machine": machine, "serve": serve}))
        self.log = user / "log.txt"
        self.start()

    def start(self) -> None:
        """The command; it follows the job where one runs."""
        self.process = self.at.submit("run", "chaos.yaml", log=self.log)

    def saved(self) -> int:
        """The last step whose checkpoint is in the store."""
        trained = self.at.storage / "chaos" / "pretrain"
        return max(
            (one.step for name in trained.folders() for one in list_saved(trained / name / "checkpoints")),
            default=0,
        )

    def steps(self) -> set[int]:
        """Those whose loss is recorded where the job works."""
        found = set[int]()
        journals = self.at.ray.head.path(WORK / "journals")
        with suppress(OSError):
            for file in journals.glob("**/journal.jsonl"):
                records = (one for one in Journal(file.parent).read() if one.kind == "metrics")
                found |= {one.fields["step"] for one in records if "train/loss" in one.fields["metrics"]}
        return found

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what will be so, and submit anew what has ended before it is."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, self.log.read_text()
            if self.process.poll() is not None:
                self.start()
            time.sleep(0.1)

    def goes_on(self) -> None:
        """Wait for a step that was not made yet."""
        reached = max(self.steps(), default=0)
        self.until(lambda: max(self.steps(), default=0) > reached)

    def until_delivered(self) -> None:
        """Wait for MLflow to have all that is recorded by now."""
        files = self.at.ray.head.path(WORK / "journals").glob("**/journal.jsonl")
        recorded = {file.parent: file.stat().st_size for file in files}
        uri = self.at.mlflow.address
        self.until(lambda: all(Delivered.load(one, uri).offset >= size for one, size in recorded.items()))

    def finish(self) -> None:
        """Its end, with exit code 0."""
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()


def lose_worker(pipeline: Pipeline) -> None:
    """SIGKILL to one of the training workers."""
    at = pipeline.at
    (worker,) = at.ray.nodes[-1].processes("RayTrainWorker")
    worker.kill()
    pipeline.goes_on()


def lose_node(pipeline: Pipeline) -> None:
    """A power cut; another computer, with empty disks, comes in its place."""
    pipeline.at.ray.nodes[-1].cut_power()
    pipeline.at.ray.add_node()
    pipeline.goes_on()


def lose_driver(pipeline: Pipeline) -> None:
    """SIGKILL to the process of the job; its user submits it again."""
    for process in pipeline.at.ray.head.processes("pipelines run"):
        process.kill()
    pipeline.goes_on()


def lose_head(pipeline: Pipeline) -> None:
    """A power cut; another computer comes in its place, with its volume; its user submits the job again."""
    reached = max(pipeline.steps())
    pipeline.at.ray.head.cut_power()
    pipeline.at.ray.restart_head()
    pipeline.until(lambda: max(pipeline.steps(), default=0) > reached)


def lose_mlflow(pipeline: Pipeline) -> None:
    """Its server is killed, and started again later; training goes on meanwhile."""
    pipeline.at.mlflow.stop()
    _outage(pipeline)
    pipeline.at.mlflow.start()
    pipeline.until_delivered()


def lose_postgres(pipeline: Pipeline) -> None:
    """The database of MLflow is killed, and started again later; training goes on meanwhile."""
    pipeline.at.postgres.kill()
    _outage(pipeline)
    pipeline.at.postgres.start()
    pipeline.until_delivered()


def lose_store(pipeline: Pipeline) -> None:
    """The store takes connections and answers nothing for a while; training goes on meanwhile."""
    pipeline.at.store.fall_silent()
    _outage(pipeline)
    pipeline.at.store.speak_again()
    reached = max(pipeline.steps())
    pipeline.until(lambda: pipeline.saved() >= reached)


def _outage(pipeline: Pipeline) -> None:
    end = time.monotonic() + OUTAGE_SECONDS
    pipeline.goes_on()
    time.sleep(max(0.0, end - time.monotonic()))
    pipeline.goes_on()


DISASTERS = (lose_worker, lose_mlflow, lose_node, lose_store, lose_driver, lose_postgres, lose_head)


class Made(NamedTuple):
    """What of a pipeline depends on neither time nor place."""

    digests: dict[str, str]
    """Of weights, frequencies and measurements, by stage."""
    losses: dict[int, list[float]]
    """By step, as MLflow has them: each has one."""
    pictures: list[str]
    """Of the masks, in MLflow."""
    statuses: dict[str, str]
    """Of MLflow's runs, by name."""

    @classmethod
    def of(cls, storage: Folder, tracking_uri: str) -> "Made":
        """What lies in the storage, and in MLflow."""
        client = MlflowClient(tracking_uri)
        experiment = client.get_experiment_by_name(PIPELINE["name"])
        assert experiment is not None
        runs = {run.info.run_name or "": run for run in client.search_runs([experiment.experiment_id])}
        losses: dict[int, list[float]] = {}
        for point in client.get_metric_history(runs[RUN].info.run_id, "train/loss"):
            losses.setdefault(point.step, []).append(point.value)
        images = [file.path for file in client.list_artifacts(runs[RUN].info.run_id, "images")]
        pictures = sorted(path.partition("timestamp")[0] for path in images if path.endswith(".webp"))
        statuses = {name: run.info.status for name, run in runs.items()}
        return cls(_digests(storage / PIPELINE["name"]), losses, pictures, statuses)

    def differences(self, other: "Made") -> list[str]:
        """What is not there as it is here, in words."""
        found = [f"{name} differs" for name in self.digests if self.digests[name] != other.digests.get(name)]
        for step in sorted(self.losses.keys() | other.losses.keys()):
            if (here := self.losses.get(step)) != (there := other.losses.get(step)):
                found.append(f"loss of step {step}: {there} in place of {here}")
        if self.pictures != other.pictures:
            found.append(f"{len(other.pictures)} pictures in place of {len(self.pictures)}")
        return found + [
            f"{name} is {status}" for name, status in other.statuses.items() if status != "FINISHED"
        ]


def _digests(made: Folder) -> dict[str, str]:
    """By stage; without the shards, which hold the address that they were served at."""
    found = {stage.rpartition("-")[0]: digest for stage, digest in digests(made).items()}
    return {stage: digest for stage, digest in found.items() if stage != "download"}


def undisturbed(folder: Path) -> Made:
    """The same pipeline on this machine alone."""
    folder.mkdir()
    (folder / "chaos.yaml").write_text(yaml.safe_dump(PIPELINE | {"serve": {"port": free_port()}}))
    command = [sys.executable, "-m", "pipelines", "run", "chaos.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Made.of(open_folder(folder / "results"), f"sqlite:///{folder / 'results' / 'mlflow.db'}")


def drill(folder: Path, disasters: Sequence[Callable[[Pipeline], None]] = DISASTERS) -> list[str]:
    """Run the pipeline through one disaster after another; say how long each took, return what was lost."""
    with installed(folder) as installation:
        expected = undisturbed(folder / "calm")
        pipeline = Pipeline(installation)
        pipeline.until(lambda: bool(pipeline.steps()))
        for disaster in disasters:
            begun, step = time.monotonic(), max(pipeline.steps())
            disaster(pipeline)
            what = " ".join((disaster.__doc__ or "").split())
            seconds = time.monotonic() - begun
            print(f"{disaster.__name__:14} {seconds:6.1f} s  after step {step:,}. {what}", flush=True)
        pipeline.finish()
        return expected.differences(Made.of(installation.storage, installation.mlflow.address))


def main() -> None:
    """Print the table, and fail if anything was lost."""
    try:
        with tempfile.TemporaryDirectory(prefix="vlp-chaos-") as folder:
            lost = drill(Path(folder))
    except pytest.skip.Exception as reason:
        sys.exit(f"make chaos: {reason}")
    print("lost:", "; ".join(lost) or "nothing", flush=True)
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
