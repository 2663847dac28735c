"""Where the drill happens: a cluster of a head and two nodes, MLflow on PostgreSQL, and an object store."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from mlflow import MlflowClient

from pipelines.tracking.journal import Journal
from tests.paths import REPOSITORY
from tests.servers.mlflow_server import PASSWORD, USER, Server
from tests.servers.object_store import ObjectStore, serving
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres, database
from tests.servers.processes import kill_tree
from tests.servers.ray_nodes import RayNodes
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

STEPS, CHECKPOINT_EVERY = 500, 25
RUN = "cluster_rgb"
PIPELINE: dict[str, Any] = {
    "name": "chaos",
    "corpus": {"name": "tiny_world", "num_train": 120, "num_heldout": 16, "image_size": 32},
    "serve": {"port": free_port()},
    "download": {"image_size": 32, "number_sample_per_shard": 40},
    "common": {
        "image_encoder": {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "num_heads": 2},
        "training": {"length": {"steps": STEPS}, "batch_size": 16, "precision": "fp32"},
        "optimizer": {"lr": 1e-3},
        "lr_schedule": {"warmup_steps": 10},
    },
    "runs": [
        {
            "base": str(REPOSITORY / "conf/run/cluster_rgb.yaml"),
            "mask": {"anchor_ratio": 0.1},
            "objective": {"embed_dim": 32, "text_encoder": {"width": 32, "depth": 1, "num_heads": 2}},
        }
    ],
    "machine": {
        "num_workers": 2,
        "data_workers": 1,
        "matmul": "pytorch",  # the same bits wherever it goes on
        "checkpoints": {"every_steps": CHECKPOINT_EVERY},
        "log_every_steps": 1,
        "recovery": {"max_failures": 20},
    },
}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "chaos",
    "AWS_SECRET_ACCESS_KEY": "chaos",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "MLFLOW_TRACKING_USERNAME": USER,
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",  # or workers starve beside whatever else the machine does
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}


@dataclass
class Run:
    """`vlp run` on the pipeline, as a process; the same command goes on where it was."""

    folder: Path
    settings: list[str]
    process: psutil.Popen | None = None
    starts: int = 0

    @property
    def work(self) -> Path:
        """Where it works."""
        return self.folder / "work"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log.txt"

    def start(self) -> None:
        """The command."""
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "chaos.yaml"
        file.write_text(yaml.safe_dump(PIPELINE))
        command = [sys.executable, "-m", "pipelines", "run", str(file), f"machine.work={self.work}"]
        with self.log.open("a") as log:
            self.process = psutil.Popen([*command, *self.settings], stdout=log, stderr=log, cwd=REPOSITORY)
        self.starts += 1

    def has_ended(self) -> bool:
        """Whether nothing of it runs."""
        return self.process is None or self.process.poll() is not None

    def finish(self) -> None:
        """Wait for its end; it has to be a good one."""
        while not self.has_ended():
            time.sleep(0.2)
        assert self.process is not None
        assert self.process.returncode == 0, self.log.read_text()[-4000:]

    def steps(self) -> list[int]:
        """The steps that were recorded so far, in the order they were done."""
        found = (self.work / "journals" / "chaos").glob(f"pretrain/{RUN}-*")
        folder = next(iter(found), None)
        if folder is None:
            return []
        records = (one for one in Journal(folder).read() if one.kind == "metrics")
        return [one.fields["step"] for one in records if "train/loss" in one.fields["metrics"]]

    def step(self) -> int:
        """The last one."""
        return (self.steps() or [0])[-1]


@dataclass
class Place:
    """All that can be killed."""

    folder: Path
    store: ObjectStore
    storage: Folder
    postgres: Postgres
    mlflow: Server
    ray: RayNodes
    run: Run
    client: MlflowClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = MlflowClient(self.mlflow.address)

    def training_workers(self) -> list[psutil.Process]:
        """The processes that train."""
        everyone = [one for node in self.ray.nodes if node.is_running() for one in descendants(node)]
        return [one for one in everyone if "RayTrainWorker" in command_of(one)]

    def delivered(self) -> list[int]:
        """The steps that MLflow shows; none while it does not answer."""
        try:
            experiment = self.client.get_experiment_by_name("chaos")
            assert experiment is not None
            runs = self.client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{RUN}'")
            history = self.client.get_metric_history(runs[0].info.run_id, "train/loss")
        except Exception:  # whatever it is, it does not answer now
            return []
        return [point.step for point in history]

    def saved(self) -> int:
        """The step of the newest whole checkpoint in the store; 0 while it does not answer."""
        try:
            trained = self.storage / "chaos" / "pretrain"
            (name,) = trained.folders()
            checkpoints = trained / name / "checkpoints"
            whole = [one for one in checkpoints.folders() if "manifest.json" in (checkpoints / one).names()]
            return max((int(one.rpartition("_")[2]) for one in whole), default=0)
        except (OSError, ValueError):
            return 0


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def place() -> Iterator[Place]:
    """Everything, started; stopped at the end."""
    os.environ |= ENVIRONMENT
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp")))
        store = stack.enter_context(serving(os.environ))
        storage = store.bucket("chaos")
        store.bucket("mlflow")
        postgres = stack.enter_context(database(["mlflow", "mlflow_auth"]))
        mlflow = Server(postgres.address, store, folder)
        mlflow.start()
        stack.callback(mlflow.stop)
        ray = RayNodes(folder, folder / "ray")
        stack.callback(ray.stop)
        ray.start_head()
        for _ in range(2):
            ray.add_node()
        address = [f"machine.storage={storage}", f"machine.tracking_uri={mlflow.address}"]
        run = Run(folder / "run", [*address, f"machine.ray_address={ray.address}"])
        stack.callback(lambda: kill_tree(run.process) if run.process else None)
        yield Place(folder, store, storage, postgres, mlflow, ray, run)


def calm_run(folder: Path) -> Run:
    """The same pipeline on this machine, left alone."""
    run = Run(folder, [f"machine.storage={folder / 'work'}"])
    run.start()
    run.finish()
    return run


def until(is_so: Callable[[], bool], *, seconds: float, what: str) -> float:
    """Wait for what will be so; the seconds that it took."""
    start = time.monotonic()
    while not is_so():
        assert time.monotonic() - start < seconds, f"after {seconds:g} s not so: {what}"
        time.sleep(0.2)
    return time.monotonic() - start


def digests(storage: Folder) -> dict[str, str]:
    """Of what each stage made whose result does not depend on the time, by its folder."""
    made = storage / "chaos"
    stages = {f"{kind}/{name}" for kind in ("pretrain", "evaluate") for name in (made / kind).folders()}
    stages |= {name for name in made.folders() if name.startswith(("download-", "docfreq-"))}
    return {stage: (made / stage).read_json("done.json")["digest"] for stage in sorted(stages)}


def opened(work: Path) -> Folder:
    """A storage that is a folder of this machine."""
    return open_folder(str(work))
