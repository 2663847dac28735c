"""A sweep on the sample corpus, killed in the middle."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build, read_layers
from pipelines.sweeps.checks import check_sweep
from pipelines.sweeps.settings import SweepConfig
from pipelines.workflow.plan import LATER, PipelineConfig, Plan
from tests.paths import REPOSITORY
from tests.pipelines.sweeps.tiny import PIPELINE, SWEEP, sweep_config, trials_of
from vlp.masking.random import RandomMask
from vlp.run import RunConfig
from vlp.tokenizers.words import WordsConfig


@pytest.mark.parametrize(
    "file", [file for file in (REPOSITORY / "conf" / "sweep").glob("*.yaml") if "tokenizer" not in file.stem]
)
def test_every_sweep_of_the_repository_passes_its_checks(file, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    config = build(SweepConfig, read_layers([str(file)]))
    pipeline = build(PipelineConfig, read_layers([str(config.pipeline)]))
    runs = {run.name: run for run in Plan(pipeline).runs(LATER, LATER)}
    check_sweep(config, pipeline, runs, MachineConfig())


def test_a_tokenizer_without_its_files_stops_a_sweep_before_the_first_trial(monkeypatch):
    file = REPOSITORY / "conf" / "sweep" / "superclass_tokenizer.yaml"
    with pytest.raises(ConfigError, match=r"space: tokenizer=.*: tokenizer: no such file"):
        test_every_sweep_of_the_repository_passes_its_checks(file, monkeypatch)


def test_a_trial_is_named_by_words_rounded_numbers_and_patches_and_finds_its_files(tmp_path):
    trials = trials_of(sweep_config(run="cluster_rgb"), tmp_path)
    words = {"name": "words", "word_counts": "words.parquet"}
    given = {"optimizer.lr": 0.00123456, "mask.anchor_ratio": 0.0226, "tokenizer": words}
    assert trials.label(given) == (
        "optimizer.lr=0.001235 mask.anchor_ratio=0.0226 (1 of 16 patches) "
        "tokenizer={'name': 'words', 'word_counts': 'words.parquet'}"
    )
    tokenizer = trials.config(given).tokenizer
    assert isinstance(tokenizer, WordsConfig)
    assert tokenizer.word_counts == tmp_path / "words.parquet"


def runs_of(storage):
    """All runs of the sweep, in MLflow."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ratio")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


def assert_no_winner(storage, command):
    """But one may ask who is ahead."""
    assert not list(storage.glob("sweeps/*/best.yaml"))
    partial = subprocess.run([*command, "--partial"], capture_output=True, text=True)
    assert partial.returncode == 0, partial.stdout + partial.stderr
    assert "best so far: " in partial.stdout


def assert_trains(said):
    """The winner that a sweep names at its end is a run of its space, on shards that are there."""
    named = re.search(r"vlp pretrain (\S+)", said)
    assert named is not None
    config = build(RunConfig, Layers().add(yaml.safe_load(Path(named[1]).read_text()), named[1]))
    assert isinstance(config.mask, RandomMask)
    assert isinstance(config.mask.mask_ratio, float)
    assert 0.1 <= config.mask.mask_ratio <= 0.8
    assert "manifest.json" in config.data.shards.names()


def assert_needs_no_ray(command):
    """What has ended says so, whatever cluster is there."""
    nowhere = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    again = subprocess.run(command, env=nowhere, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "best: " in again.stdout


@pytest.mark.timeout(800)
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_cut_names_no_winner_and_goes_on(tmp_path, end):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(PIPELINE))
    (tmp_path / "ratio.yaml").write_text(yaml.safe_dump(SWEEP | {"pipeline": str(tmp_path / "tiny.yaml")}))
    storage = tmp_path / "results"
    command = [sys.executable, "-m", "pipelines", "sweep", str(tmp_path / "ratio.yaml")]
    command += [f"machine.storage={storage}", "machine.num_workers=1", "machine.log_every_steps=10"]

    with (tmp_path / "log.txt").open("w") as log:
        driver = psutil.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while not list(storage.glob("sweeps/*/trials/*/checkpoints/step_0000020")):
            assert driver.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
            time.sleep(0.05)
        driver.send_signal(end)
        code = driver.wait()
    assert code != 0
    assert "best:" not in (tmp_path / "log.txt").read_text()
    assert_no_winner(storage, command)
    if end == signal.SIGINT:
        assert "RUNNING" not in {run.info.status for run in runs_of(storage)}
    trials = {p.name for p in storage.glob("sweeps/*/trials/*")}

    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[sweep] going on with" in result.stdout
    finished = {p.name for p in storage.glob("sweeps/*/trials/*")}
    assert trials <= finished
    assert len(finished) == 3

    assert_trains(result.stdout)
    assert_needs_no_ray(command)

    runs = runs_of(storage)
    (parent,) = [run for run in runs if run.info.run_name == "ratio"]
    nested = [run for run in runs if run.data.tags.get("trial_id")]
    assert {run.data.tags["trial_id"] for run in nested} == finished
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parent.info.run_id}
    assert {run.info.status for run in nested} == {"FINISHED"}
    scores = [
        max(v for k, v in run.data.metrics.items() if k.endswith("recall_at_5") and "text_to" in k)
        for run in nested
    ]
    described = parent.data.tags["mlflow.note.content"]
    assert {run.info.run_id for run in nested} == set(re.findall(r"runs/(\w{32})", described))
    assert parent.data.metrics["best/val/tiny_world/text_to_image/recall_at_5"] in scores
