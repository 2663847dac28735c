"""What is measured during training is the same beside it as on its worker, and nothing waits for it."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.checkpoints.store import list_saved, record_metrics
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.job import TrainJob
from pipelines.training.resolved import resolve
from pipelines.training.validation import BesideTraining
from tests.pipelines.runs import pretrain
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST

MakeRun = Callable[..., RunConfig]
Scores = dict[str, float]


@pytest.fixture
def run(tiny_run: MakeRun, tiny_world: Path, tmp_path: Path) -> RunConfig:
    evaluation: dict[str, Any] = {"every_steps": 1}
    evaluation["classification"] = {"shapes": str(tiny_world / "classification")}
    scenes = tmp_path / "scenes.parquet"
    scenes.write_bytes((tiny_world / "retrieval.parquet").read_bytes())
    evaluation["retrieval"] = {"scenes": str(scenes)}
    return tiny_run(training={"length": {"steps": 4}, "ema": {"decay": 0.5}}, evaluation=evaluation)


def train(run: RunConfig, output: Path, **machine: Any) -> str:
    """Train with a checkpoint after every step; returns the digest of the weights."""
    checkpoints = CheckpointSettings(every_steps=1, keep=9)
    settings = {"num_workers": 1, "log_every_steps": 1, "checkpoints": checkpoints}
    journal = journal_of(output)
    journal.begin(name=run.name, tags={})
    return pretrain(run, output, machine=MachineConfig(**settings | machine), journal=journal).digest


def job_of(run: RunConfig, output: Path) -> TrainJob:
    machine = MachineConfig(validation_workers=1)
    return TrainJob(resolve(run, machine), machine, output, journal_of(output))


def journal_of(output: Path) -> Journal:
    return Journal(output.parent / f"journal-{output.name}")


def measured(output: Path) -> dict[int, Scores]:
    """What the journal has by step."""
    scores: dict[int, Scores] = {}
    for record in journal_of(output).read():
        if record.kind == "metrics":
            found = {k: v for k, v in record.fields["metrics"].items() if k.startswith("val/")}
            if found:
                scores.setdefault(record.fields["step"], {}).update(found)
    return scores


def in_manifests(output: Path) -> dict[int, Scores]:
    return {one.step: dict(one.metrics) for one in list_saved(output / "checkpoints")}


@pytest.mark.slow
def test_training_goes_on_while_nothing_can_be_measured(
    ray_cluster: None, run: RunConfig, tmp_path: Path
) -> None:
    """All CPUs but the training worker's are taken until its last step is done; then the tasks measure what
    the worker would have."""
    import ray

    here, there = tmp_path / "here", tmp_path / "there"
    train(run, here, num_workers=0)
    others: Any = ray.remote(num_cpus=ray.cluster_resources()["CPU"] - 1)(threading.Event).remote()
    ray.get(others.is_set.remote())
    settings = {"validation_workers": 2, "checkpoints": CheckpointSettings(every_steps=1, keep=1)}
    training = threading.Thread(target=train, args=(run, there), kwargs=settings)
    training.start()
    while not (there / "checkpoints" / "step_0000004" / MANIFEST).is_file():
        time.sleep(0.05)
        assert training.is_alive()
    assert measured(there) == {}
    assert list(in_manifests(there)) == [1, 2, 3, 4]  # of which one would be kept, were they measured
    ray.kill(others)
    training.join()
    assert list(measured(there)) == [1, 2, 3, 4]
    assert measured(there) == measured(here) == in_manifests(here)
    assert measured(here)[1] != measured(here)[4]
    assert in_manifests(there) == {4: measured(here)[4]}


def test_what_an_interruption_left_unmeasured_is_measured_later(
    ray_cluster: None, run: RunConfig, tmp_path: Path
) -> None:
    train(run, tmp_path / "run", num_workers=0)
    expected = measured(tmp_path / "run")
    for step in (2, 3):
        record_metrics(tmp_path / "run" / "checkpoints" / f"step_{step:07d}", {})
    job = job_of(run, tmp_path / "run")
    (job.journal.folder / "journal.jsonl").unlink()
    BesideTraining(job).finish()
    assert measured(job.output) == {step: expected[step] for step in (2, 3)}
    assert in_manifests(job.output) == expected


def test_a_validation_that_fails_is_said_and_stops_nothing(
    ray_cluster: None, run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(run, evaluation=EvaluationConfig()), tmp_path / "run", num_workers=0)
    job = job_of(run, tmp_path / "run")
    scenes = job.config.evaluation.retrieval["scenes"]
    scenes.parent.write(scenes.name, b"no Parquet")
    BesideTraining(job).finish()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "step_0000004" in line and "Parquet" in line]
    tags = [record.fields["tags"] for record in job.journal.read() if record.kind == "tags"]
    assert {name for names in tags for name in names} >= {f"failed_validation.step_000000{i}" for i in "1234"}
    assert measured(job.output) == {}


@pytest.mark.parametrize("validation_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_how_often_checkpoints_are_written_does_not_decide_what_is_measured(
    request: pytest.FixtureRequest, run: RunConfig, tmp_path: Path, validation_workers: int
) -> None:
    if validation_workers:
        request.getfixturevalue("ray_cluster")
    run = replace(run, evaluation=replace(run.evaluation, every_steps=3))
    found = []
    for every in (1, 2, 100):
        output, checkpoints = tmp_path / f"every-{every}", CheckpointSettings(every_steps=every, keep=9)
        workers = {"num_workers": validation_workers, "validation_workers": validation_workers}
        train(run, output, checkpoints=checkpoints, **workers)
        found.append(measured(output))
    assert list(found[0]) == [3, 4]  # the multiple, and the last one
    assert found[0] == found[1] == found[2]
    assert {step for step, scores in in_manifests(tmp_path / "every-1").items() if scores} == {3, 4}
