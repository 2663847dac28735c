"""A sweep on the sample corpus, killed in the middle."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.sweeps.search_space import search_space
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.sweep import Search, _check
from pipelines.tracking.journal import Journal
from pipelines.workflow.plan import LATER, PipelineConfig, Plan
from tests.paths import REPOSITORY
from tests.servers.ports import free_port
from vlp.run import RunConfig

PIPELINE = {
    "name": "tiny",
    "corpus": {"name": "tiny_world", "num_train": 120, "num_heldout": 20, "image_size": 32},
    "serve": {"port": free_port()},
    "download": {"image_size": 32, "number_sample_per_shard": 60},
    "common": {
        "image_encoder": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2},
        "training": {"length": {"steps": 40}, "batch_size": 20, "precision": "fp32"},
        "optimizer": {"lr": 1e-3},
        "lr_schedule": {"warmup_steps": 2},
    },
    "runs": [
        {
            "base": str(REPOSITORY / "conf/run/flip.yaml"),
            "objective": {"embed_dim": 16, "text_encoder": {"width": 16, "depth": 1, "num_heads": 2}},
        }
    ],
}
SWEEP = {
    "name": "ratio",
    "run": "flip",
    "overrides": {"evaluation.every_steps": 10},
    "space": {"mask.mask_ratio": {"uniform": [0.1, 0.8]}},
    "metric": "val/tiny_world/text_to_image/recall@5",
    "num_trials": 3,
    "scheduler": {"grace_steps": 10},
}


def test_samplers_are_those_of_ray_tune_and_a_misspelt_one_is_named():
    (sampler,) = search_space({"mask.mask_ratio": {"uniform": [0.1, 0.2]}}).values()
    assert all(0.1 <= sampler.sample() <= 0.2 for _ in range(20))
    assert search_space({"seed": {"grid_search": [1, 2]}}) == {"seed": {"grid_search": [1, 2]}}
    with pytest.raises(ConfigError, match=r"space\.seed: 'unifrom' is not a sampler .* mean uniform\?"):
        search_space({"seed": {"unifrom": [0, 1]}})


@pytest.mark.parametrize(
    "file", [file for file in (REPOSITORY / "conf" / "sweep").glob("*.yaml") if "tokenizer" not in file.stem]
)
def test_every_sweep_of_the_repository_draws_valid_runs(file, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    config = build(SweepConfig, Layers().add(yaml.safe_load(file.read_text()), str(file)))
    pipeline = build(PipelineConfig, Layers().add(yaml.safe_load(config.pipeline.read_text()), "pipeline"))
    runs = {run.name: run for run in Plan(pipeline).runs(LATER, LATER)}
    _check(config, runs)
    misspelt = replace(config, space=config.space | {"mask.no_such_key": {"choice": [1]}})
    with pytest.raises(ConfigError, match="no_such_key"):
        _check(misspelt, runs)
    timed = replace(config, overrides={"training.length.seconds": 60})
    with pytest.raises(
        ConfigError, match=r"length\.seconds: the trials of a sweep are compared after as many"
    ):
        _check(timed, runs)


def test_a_tokenizer_without_its_files_stops_a_sweep_before_the_first_trial(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ConfigError, match=r"space: tokenizer: no such file"):
        test_every_sweep_of_the_repository_draws_valid_runs(
            REPOSITORY / "conf" / "sweep" / "superclass_tokenizer.yaml", monkeypatch
        )


def test_a_trial_is_named_by_words_and_rounded_numbers_and_finds_its_files(tmp_path):
    run = {"name": "x", "objective": {"name": "superclass"}}
    search = Search(run, MachineConfig(), tmp_path, tmp_path, Journal(tmp_path))
    sampled = {"optimizer.lr": 0.00123456, "tokenizer": {"name": "words", "word_counts": "words.parquet"}}
    assert search.label(sampled) == (
        "lr=0.001235 tokenizer={'name': 'words', 'word_counts': 'words.parquet'}"
    )
    assert search.config(sampled).tokenizer.word_counts == tmp_path / "words.parquet"


def statuses(storage):
    """Of all runs of the sweep, in MLflow."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("ratio").experiment_id])
    return {run.info.status for run in runs}


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
    assert not list(storage.glob("sweeps/*/best.yaml"))
    assert "best:" not in (tmp_path / "log.txt").read_text()
    if end == signal.SIGINT:
        assert "RUNNING" not in statuses(storage)
    trials = {p.name for p in storage.glob("sweeps/*/trials/*")}

    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[sweep] going on with" in result.stdout
    finished = {p.name for p in storage.glob("sweeps/*/trials/*")}
    assert trials <= finished
    assert len(finished) == 3

    best = Path(re.search(r"vlp pretrain (\S+)", result.stdout)[1])
    config = build(RunConfig, Layers().add(yaml.safe_load(best.read_text()), str(best)))
    assert 0.1 <= config.mask.mask_ratio <= 0.8
    assert "manifest.json" in config.data.shards.names()

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("ratio").experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "ratio"]
    nested = [run for run in runs if run.data.tags.get("trial_id")]
    assert {run.data.tags["trial_id"] for run in nested} == finished
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parent.info.run_id}
    assert {run.info.status for run in nested} == {"FINISHED"}
    scores = [
        max(v for k, v in run.data.metrics.items() if k.endswith("recall_at_5") and "text_to" in k)
        for run in nested
    ]
    assert parent.data.metrics["best/val/tiny_world/text_to_image/recall_at_5"] in scores
