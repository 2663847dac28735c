"""A pipeline that is killed again and again ends as one that was left alone."""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from tests.paths import REPOSITORY
from tests.servers.ports import free_port

PIPELINE = {
    "name": "tiny",
    "corpus": {"name": "tiny_world", "num_train": 160, "num_heldout": 20, "image_size": 32},
    "serve": {"port": free_port(), "failures": {"http_404": 0.05, "timeout": 0.02}},
    "download": {
        "image_size": 32,
        "number_sample_per_shard": 20,
        "timeout": 3,  # long enough for a busy machine: what answers in time decides the bytes
        "retries": 1,
    },
    "common": {
        "image_encoder": {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "num_heads": 2},
        "training": {"length": {"steps": 45}, "batch_size": 24, "precision": "fp32"},
        "optimizer": {"lr": 1e-3},
        "lr_schedule": {"warmup_steps": 5},
    },
    "runs": [
        {
            "base": str(REPOSITORY / "conf/run/cluster_rgb.yaml"),
            # All that a run has to remember: averaged weights, a threshold that follows them, the phase.
            "mask": {"anchor_ratio": 0.1, "feature": "mix", "recalibrations": 5},
            "training": {"ema": {"decay": 0.9, "chooses_masks": True}},
            "tuning": {"steps": 15, "lr": 1e-4},
            "objective": {"embed_dim": 16, "text_encoder": {"width": 16, "depth": 1, "num_heads": 2}},
        }
    ],
    "machine": {"num_workers": 2, "checkpoints": {"every_steps": 10}, "log_every_steps": 5},
}


class Driver:
    """`vlp run` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.storage = folder / "results"
        file = folder / "tiny.yaml"
        file.write_text(yaml.safe_dump(PIPELINE))
        arguments = ["run", str(file), f"machine.storage={self.storage}"]
        self.log = (folder / "log.txt").open("a")
        self.process = psutil.Popen(
            [sys.executable, "-m", "pipelines", *arguments], stdout=self.log, stderr=self.log
        )

    def until(self, condition: Callable[[], bool]) -> "Driver":
        """Wait for something to be on disk; fails if the driver ends first."""
        deadline = time.monotonic() + 300
        while not condition():
            assert self.process.poll() is None, Path(self.log.name).read_text()
            assert time.monotonic() < deadline, Path(self.log.name).read_text()
            time.sleep(0.01)
        return self

    def found(self, pattern: str, count: int = 1) -> Callable[[], bool]:
        return lambda: len(list(self.storage.glob(pattern))) >= count

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_a_training_worker(self) -> None:
        workers = [
            p for p in self.process.children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())
        ]
        workers[-1].kill()

    def finish(self) -> "Driver":
        assert self.process.wait(timeout=240) == 0, Path(self.log.name).read_text()
        return self


def checksums(storage: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in storage.glob("tiny/download-*/*.tar")}


def done(storage: Path, stage: str) -> dict:
    (file,) = storage.glob(f"tiny/{stage}/done.json")
    return json.loads(file.read_text())


def loss_history(storage: Path) -> dict[int, list[float]]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.mlflow.runName = 'cluster_rgb'")
    history: dict[int, list[float]] = {}
    for metric in client.get_metric_history(run.info.run_id, "train/loss"):
        history.setdefault(metric.step, []).append(metric.value)
    return history


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_every_stage_it_ends_with_the_same_shards_weights_and_metrics(tmp_path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    expected = Driver(calm).finish().storage

    driver = Driver(stormy)
    driver.until(driver.found("tiny/download-*/*_stats.json", 2)).kill()
    assert not list(driver.storage.glob("tiny/download-*/manifest.json"))

    driver = Driver(stormy)
    driver.until(
        driver.found("tiny/pretrain/*/checkpoints/step_0000010/model.safetensors")
    ).kill_a_training_worker()
    driver.until(driver.found("tiny/pretrain/*/checkpoints/step_0000040/model.safetensors")).kill()

    driver = Driver(stormy)
    driver.until(driver.found("tiny/evaluate/*")).kill()

    actual = Driver(stormy).finish().storage
    assert checksums(actual) == checksums(expected)
    for stage in ("pretrain/*", "evaluate/*", "docfreq-*"):
        assert done(actual, stage)["digest"] == done(expected, stage)["digest"]
    assert loss_history(actual) == loss_history(expected)  # no step is missing, none is there twice

    log = Driver(stormy).finish().log.name
    assert Path(log).read_text().count("] unchanged: ") >= 6  # nothing is left to do
