"""Nodes die and come while a run trains: it goes on by itself, and the result is that of a calm run.

The cluster and the driver are a process of their own: Ray starts nodes in a main thread only.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.checkpoints.checkpoint import write_settings
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from tests.paths import REPOSITORY
from tests.pipelines.runs import pretrain, random_objective
from vlp.checkpoint import MODEL
from vlp.run import RunConfig

STEPS, CHECKPOINT_EVERY = 300, 10

CLUSTER = """
import json, sys, threading, time
from contextlib import suppress
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from pipelines.checkpoints.checkpoint import read_run
from pipelines.config.machine import CheckpointSettings, MachineConfig, RecoverySettings
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain

folder, num_workers = Path(sys.argv[1]), json.loads(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
machine = MachineConfig(
    num_workers=tuple(num_workers) if isinstance(num_workers, list) else num_workers,
    ray_address=cluster.address, log_every_steps=1,
    checkpoints=CheckpointSettings(every_steps=CHECKPOINT_EVERY, keep=100),
    recovery=RecoverySettings(resize_seconds=1, max_failures=1),
)
journal = Journal(folder / "journal")
journal.begin(name="run", tags={})
settings = {"machine": machine, "journal": journal}
arguments = (read_run(folder), folder / "run")
training = threading.Thread(target=pretrain, args=arguments, kwargs=settings, daemon=True)
training.start()


def workers():
    return [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]


def until(is_so, *, slow=()):
    # Ray looks for new nodes every 20 seconds, and steps take milliseconds: `slow` processes mostly pause.
    while not is_so():
        assert training.is_alive()
        with suppress(psutil.NoSuchProcess):
            for process in slow:
                process.suspend()
            time.sleep(0.2)
            for process in slow:
                process.resume()
        time.sleep(0.02)


def history():
    metrics = [r.fields["metrics"] for r in journal.read() if r.kind == "metrics"]
    return [values["worker/num_workers"] for values in metrics if "worker/num_workers" in values]


def saved():
    return len(list((folder / "run" / "checkpoints").glob("step_*/manifest.json")))


EVENTS
training.join()
assert (folder / "run" / "manifest.json").exists()
ray.shutdown()
cluster.shutdown()
"""
KILL = """
until(lambda: saved() >= 1)
cluster.remove_node(nodes[1], allow_graceful=False)
"""
SHRINK_AND_GROW = """
until(lambda: history()[-1] == 1)
(alone,) = workers()
cluster.add_node(num_cpus=1)
until(lambda: not alone.is_running() or history()[-1] == 2, slow=[alone])
"""
WAIT_AND_REPLACE = """
time.sleep(3)  # the worker outlives its node by a moment
steps = len(history())
time.sleep(6)
assert len(history()) == steps
cluster.add_node(num_cpus=1)
"""


@pytest.fixture
def run(tiny_run: Callable[..., RunConfig]) -> RunConfig:
    return tiny_run(training={"length": {"steps": STEPS}, "batch_size": 8})


def train_through(events: str, num_workers: str, run: RunConfig, folder: Path) -> list[float]:
    """Train in a cluster of two nodes with room for one worker each; the number of workers of each step."""
    folder.mkdir()
    write_settings(folder, run)
    script = CLUSTER.replace("CHECKPOINT_EVERY", str(CHECKPOINT_EVERY)).replace("EVENTS", KILL + events)
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), num_workers],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [r.fields["metrics"] for r in Journal(folder / "journal").read() if r.kind == "metrics"]
    return [values["worker/num_workers"] for values in metrics if "worker/num_workers" in values]


def train_calmly(run: RunConfig, folder: Path, num_workers: int) -> None:
    """The same run, undisturbed."""
    journal = Journal(folder / "journal")
    journal.begin(name="run", tags={})
    pretrain(run, folder / "run", machine=MachineConfig(num_workers=num_workers), journal=journal)


def row(state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All weights, one after another."""
    return torch.cat([tensor.flatten().double() for _, tensor in sorted(state.items())])


def weights(folder: Path) -> torch.Tensor:
    """Those of the last checkpoint."""
    return row(load_file(folder / f"run/checkpoints/step_{STEPS:07d}" / MODEL))


@pytest.mark.slow
def test_an_elastic_run_that_loses_a_node_and_gets_another_ends_as_one_worker_alone(
    run: RunConfig, tmp_path: Path
) -> None:
    """To the rounding of float32, which is all that depends on the number of workers."""
    counts = train_through(SHRINK_AND_GROW, "[1, 2]", run, tmp_path / "stormy")
    assert [counts[0], *(b for a, b in pairwise(counts) if a != b)] == [2, 1, 2]
    train_calmly(run, tmp_path / "calm", 0)
    start = row(random_objective(run).state_dict())
    stormy, calm = weights(tmp_path / "stormy"), weights(tmp_path / "calm")
    assert (stormy - calm).norm() < 1e-3 * (calm - start).norm()


@pytest.mark.slow
def test_a_run_of_two_workers_waits_for_a_node_in_the_place_of_a_dead_one(
    ray_cluster: None, run: RunConfig, tmp_path: Path
) -> None:
    """Equal to the bit to a run that lost none."""
    counts = train_through(WAIT_AND_REPLACE, "2", run, tmp_path / "stormy")
    assert set(counts) == {2}
    train_calmly(run, tmp_path / "calm", 2)
    assert torch.equal(weights(tmp_path / "stormy"), weights(tmp_path / "calm"))
