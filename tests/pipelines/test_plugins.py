"""A package outside of the repository in every command: the manual's mask and objective."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.plugin_package import write_package
from tests.servers.ports import free_port
from tests.servers.ray_head import Head, ray_head
from vlp.checkpoint import MODEL, read_settings

RUN: dict[str, Any] = {
    "name": "own",
    "plugins": ["my_package.masks", "my_package.objectives"],
    "image_encoder": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2},
    "mask": {"name": "checkerboard"},
    "objective": {"name": "mean_colour"},
    "training": {"length": {"steps": 4}, "batch_size": 8, "precision": "fp32"},
    "optimizer": {"lr": 1e-3},
    "lr_schedule": {"warmup_steps": 1},
}
PIPELINE: dict[str, Any] = {
    "name": "tiny",
    "corpus": {"name": "tiny_world", "num_train": 60, "num_heldout": 10, "image_size": 32},
    "download": {"image_size": 32, "number_sample_per_shard": 60},
    "runs": [{"base": "run.yaml"}],
}
SWEEP: dict[str, Any] = {
    "name": "masks",
    "plugins": ["my_package.masks"],
    "pipeline": "pipeline.yaml",
    "run": "own",
    "overrides": {"evaluation.every_steps": 2, "training.length.steps": 4},
    "space": {"mask": {"grid": [{"name": "checkerboard"}, {"name": "random", "mask_ratio": 0.5}]}},
    "metrics": {"val/tiny_world/knn/acc1": "max"},
    "search": {"name": "grid"},
}


@pytest.fixture
def home(tmp_path: Path, shards: Path) -> Path:
    """A folder with the package and its settings, and nothing of the repository."""
    write_package(tmp_path)
    run = RUN | {"data": {"shards": str(shards)}}
    pipeline = PIPELINE | {"serve": {"port": free_port()}}
    only_objective = RUN | {"plugins": ["my_package.objectives"], "mask": {"name": "none"}}
    for name, values in (("own", run), ("run", only_objective), ("pipeline", pipeline), ("sweep", SWEEP)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def vlp(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user has it: a script, which does not put the current folder on Python's path."""
    script = str(Path(sys.executable).parent / "vlp")
    return subprocess.run([script, *arguments], cwd=home, capture_output=True, text=True, timeout=600)


def done(home: Path, *arguments: str) -> str:
    """What a command says that succeeds."""
    result = vlp(home, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(find_folder(run) / MODEL)


def find_folder(run: Path) -> Path:
    """The last checkpoint of a run."""
    return sorted(run.glob("checkpoints/step_*"))[-1]


LOAD = """
import sys
import vlp

model = vlp.load("out", plugins=("my_package.masks", "my_package.objectives"))
print(model.config.mask.name, type(model.objective).__name__, "pipelines" in sys.modules)
"""


def test_a_mask_and_an_objective_of_a_package_are_trained_listed_and_loaded(home: Path) -> None:
    done(home, "pretrain", "own.yaml", "machine.num_workers=0", "-o", "out")
    settings = read_settings(find_folder(home / "out"))
    assert settings["plugins"] == RUN["plugins"]
    assert (settings["mask"]["name"], settings["objective"]["name"]) == ("checkerboard", "mean_colour")
    shown = yaml.safe_load(done(home, "print-config", "own.yaml"))
    assert shown["plugins"] == RUN["plugins"]
    wrong = vlp(home, "pretrain", "own.yaml", "mask.name=zigzag", "machine.num_workers=0")
    assert wrong.returncode == 2
    assert (
        "command line: mask.name is 'zigzag'; valid: adaptive, attention, block, checkerboard" in wrong.stderr
    )
    loaded = subprocess.run([sys.executable, "-c", LOAD], cwd=home, capture_output=True, text=True)
    assert loaded.stdout == "checkerboard MeanColour False\n", loaded.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_with_loaders_come_to_the_weights_of_one_process(home: Path, tiny_world: Path) -> None:
    done(home, "pretrain", "own.yaml", "machine.num_workers=0", "-o", "alone")
    machine = ["machine.num_workers=2", "machine.loader_workers=1", "machine.validation_workers=1"]
    measured = [f"evaluation.classification.x={tiny_world / 'classification'}", "evaluation.every_steps=4"]
    said = done(home, "pretrain", "own.yaml", *machine, *measured, "-o", "out")
    assert "failed" not in said
    alone, both = weights(home / "alone"), weights(home / "out")
    for name, x in alone.items():
        torch.testing.assert_close(both[name], x)
    said = done(home, "evaluate", "checkpoint=out", measured[0], "-o", "measured")
    assert "x/knn/acc1" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_searches_the_masks_of_a_package(home: Path) -> None:
    said = done(home, "sweep", "sweep.yaml", "machine.num_workers=1", "machine.data_workers=0")
    assert said.count("step 4, val/tiny_world/knn/acc1") == 2
    best = Path(re.search(r"vlp pretrain (\S+)", said)[1])  # pyright: ignore[reportOptionalSubscript]
    assert set(yaml.safe_load(best.read_text())["plugins"]) == set(RUN["plugins"])
    trials = [read_settings(find_folder(run)) for run in (home / "results").glob("sweeps/*/trials/*")]
    assert {trial["mask"]["name"] for trial in trials} == {"checkerboard", "random"}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster that was started elsewhere, and knows nothing of the package."""
    with ray_head(tmp_path_factory.mktemp("head")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_has_the_package_of_the_folder_that_it_was_submitted_from(head: Head, home: Path) -> None:
    storage, command = home / "kept", ["pretrain", "own.yaml", "machine.num_workers=2"]
    said = done(home, "submit", "--address", head.dashboard, *command, f"machine.storage={storage}")
    assert "SUCCEEDED" in said
    (run,) = (storage / "pretrain").iterdir()
    assert read_settings(find_folder(run))["mask"]["name"] == "checkerboard"
    missing = vlp(home, "submit", "--address", head.dashboard, *command, "plugins=[no_package]")
    assert missing.returncode == 2
    assert "vlp: command line: plugins: there is no module no_package" in missing.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_of_a_cluster_that_is_joined_find_the_package_on_our_path(
    head: Head, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself hands on no more than the current folder."""
    (elsewhere := home / "elsewhere").mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")]))
    address = f"machine.ray_address={head.address}"
    done(elsewhere, "pretrain", "../own.yaml", "machine.num_workers=2", address, "-o", "out")
    assert read_settings(find_folder(elsewhere / "out"))["objective"]["name"] == "mean_colour"
