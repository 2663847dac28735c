"""A step that would harm the weights is stopped at or passed over, and can be run again to the bit."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

from pipelines.checkpoints.checkpoint import MODEL, TRAINING
from pipelines.commands.main import main
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.config.settings import to_dict
from pipelines.tracking.journal import Journal
from pipelines.training.replay import replay
from tests.pipelines.runs import pretrain
from vlp.run import RunConfig
from vlp.training.bad_steps import BadStepError

MakeRun = Callable[..., RunConfig]
SPIKE = {"spike": 1.02, "window": 2, "max_in_a_row": 100}
"""Small enough for some of the steps of a tiny run."""
LEARNS_MASKS = {
    "mask": {"name": "cluster", "feature": "embedding", "anchor_ratio": 0.2, "threshold": 0.5},
    "objective": {"name": "superclass", "idf": "online"},
}


def train(run: RunConfig, output: Path, **machine: Any) -> dict[int, dict[str, float]]:
    """Train, in this process unless `num_workers` is given; returns the metrics of each step."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    settings = replace(MachineConfig(num_workers=0, log_every_steps=1), **machine)
    pretrain(run, output, machine=settings, journal=journal)
    return metrics(output)


def metrics(output: Path) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    for record in Journal(output.parent / f"journal-{output.name}").read():
        if record.kind == "metrics":
            steps.setdefault(record.fields["step"], {}).update(record.fields["metrics"])
    return steps


def vlp(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_a_rate_that_breaks_the_weights_stops_the_run_in_one_line(tiny_run: MakeRun, tmp_path: Path) -> None:
    file, output = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(to_dict(tiny_run(optimizer={"lr": 1e30}))))
    machine = ["machine.num_workers=0", f"machine.storage={tmp_path}"]
    result = vlp("pretrain", str(file), *machine, "-o", str(output))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    folder = output / "bad_steps" / "step_0000002"
    assert result.stderr.startswith(
        "vlp: training failed: tiny stopped at step 2: the loss is nan; run it again with"
    )
    assert f"`vlp replay {folder}`" in result.stderr
    assert "lower optimizer.lr" in result.stderr
    assert result.stderr.count("\n") == 1

    shown = vlp("replay", str(folder))
    assert shown.exit_code == 0, shown.output
    assert "loss           nan, as in the run" in shown.stdout
    assert "masks          as in the run" in shown.stdout
    assert "first module whose output is not finite" in shown.stdout
    traced = vlp("replay", str(folder), "--anomaly")
    assert traced.exit_code == 1
    assert "autograd: Function" in traced.stderr


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("changes", [{}, {"mask": {"name": "none"}}, LEARNS_MASKS])
def test_a_step_runs_again_to_the_bit(
    changes: dict[str, Any], averaged: bool, tiny_run: MakeRun, tmp_path: Path
) -> None:
    """Against what a run that lets the step pass logs of it."""
    training = {"length": {"steps": 12}, "ema": {"decay": 0.5, "chooses_masks": True} if averaged else None}
    passing = train(tiny_run(**changes, training=training), tmp_path / "passing")
    with pytest.raises(BadStepError, match=r"times .* the median of the last 2 steps"):
        train(tiny_run(**changes, training=training | {"on_bad_step": SPIKE}), tmp_path / "run")
    (folder,) = (tmp_path / "run" / "bad_steps").iterdir()
    number = int(folder.name.removeprefix("step_"))
    found = replay(folder)
    assert found.loss == found.saved_loss == passing[number]["train/loss"]
    assert found.grad_norm == passing[number]["weights/grad_norm"]
    assert found.metrics["mask_ratio"] == pytest.approx(passing[number]["view/mask_ratio"])
    assert found.has_same_masks
    assert not found.broken_weights
    assert math.hypot(*found.gradients.values()) == pytest.approx(found.grad_norm)


def test_a_saved_step_shows_where_its_pairs_came_from(
    tiny_run: MakeRun, shards: Path, tmp_path: Path
) -> None:
    run = tiny_run(training={"length": {"steps": 12}, "on_bad_step": SPIKE})
    with pytest.raises(BadStepError):
        train(run, tmp_path / "run")
    (folder,) = (tmp_path / "run" / "bad_steps").iterdir()
    sources = json.loads((folder / "sources_0.json").read_text())
    batch = torch.load(folder / "batch_0.pt", weights_only=True)["batch"]
    tokens, lengths = run.tokenizer.build().encode([source["caption"] for source in sources])
    assert torch.equal(tokens, batch["tokens"])
    assert torch.equal(lengths, batch["lengths"])
    for source in sources:
        assert source["caption"] in (
            f"a red circle number {int(source['key'])}",
            f"{int(source['key']) % 3} blue squares",
        )
        assert Path(source["shard"]).parent == shards
    assert Image.open(folder / "images.png").width > 8 * 128


def states(output: Path, step: int) -> list[Any]:
    folder = output / "checkpoints" / f"step_{step:07d}"
    training = torch.load(folder / TRAINING, weights_only=True)
    tensors = [load_file(folder / MODEL), training["weights"]]
    return tensors + list(training["optimizer"]["state"].values())


def are_equal(first: list[Any], second: list[Any]) -> bool:
    return all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)


@pytest.mark.parametrize("changes", [{}, LEARNS_MASKS])
def test_a_skipped_step_changes_no_weight_no_average_no_count_and_no_optimizer(
    changes: dict[str, Any], tiny_run: MakeRun, tmp_path: Path
) -> None:
    training = {"length": {"steps": 12}, "ema": {"decay": 0.5}, "on_bad_step": SPIKE | {"action": "skip"}}
    run = tiny_run(**changes, training=training)
    steps = train(run, tmp_path / "run", checkpoints=CheckpointSettings(every_steps=1, keep=100))
    skipped = [steps[i]["weights/skipped_steps"] for i in range(1, 13)]
    assert skipped[:2] == [0, 0]
    assert 1 <= skipped[-1] <= 9
    for i in range(2, 13):
        is_same = are_equal(states(tmp_path / "run", i - 1), states(tmp_path / "run", i))
        assert is_same == (skipped[i - 1] > skipped[i - 2])
    saved = list((tmp_path / "run" / "bad_steps").iterdir())
    assert len(saved) == min(3, skipped[-1])


def saved_step(output: Path) -> tuple[Path, list[Any]]:
    """The folder of a run's one bad step, and all that it holds."""
    (folder,) = (output / "bad_steps").iterdir()
    tensors = [torch.load(file, weights_only=True) for file in sorted(folder.glob("*.pt"))]
    parts = [part for file in tensors for part in file.values()]
    return folder, [{key: value for key, value in part.items() if value is not None} for part in parts]


@pytest.mark.parametrize("changes", [{}, LEARNS_MASKS])
def test_a_bad_step_that_is_found_later_is_the_same_one_and_nothing_changed_since(
    changes: dict[str, Any], tiny_run: MakeRun, tmp_path: Path
) -> None:
    training = {"length": {"steps": 12}, "ema": {"decay": 0.5, "chooses_masks": True}, "on_bad_step": SPIKE}
    said = []
    for every in (1, 11):
        with pytest.raises(BadStepError) as raised:
            train(tiny_run(**changes, training=training), tmp_path / f"{every}", log_every_steps=every)
        said.append(str(raised.value).replace(str(tmp_path / f"{every}"), "run"))
    assert said[0] == said[1]
    (at_once, expected), (later, found) = (saved_step(tmp_path / name) for name in ("1", "11"))
    assert 3 <= int(at_once.name.removeprefix("step_")) < 11
    assert (later.name, (later / "step.json").read_text()) == (
        at_once.name,
        (at_once / "step.json").read_text(),
    )
    assert are_equal(found, expected)


def test_skipping_ends_where_it_does_not_help(tiny_run: MakeRun, tmp_path: Path) -> None:
    skipping = {"action": "skip", "max_in_a_row": 3, "num_saved": 1}
    run = tiny_run(optimizer={"lr": 1e30}, training={"length": {"steps": 10}, "on_bad_step": skipping})
    with pytest.raises(BadStepError, match=r"tiny stopped at step 4: .*max_in_a_row 3 is reached"):
        train(run, tmp_path / "run")
    saved = sorted(folder.name for folder in (tmp_path / "run" / "bad_steps").iterdir())
    assert saved == ["step_0000002", "step_0000004"]


def test_a_resumed_run_skips_the_same_steps(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(
        training={"length": {"steps": 8}, "on_bad_step": SPIKE | {"action": "skip", "num_saved": 0}}
    )
    machine = {"checkpoints": CheckpointSettings(every_steps=2, keep=9)}
    whole = train(run, tmp_path / "whole", **machine)
    assert 0 < whole[4]["weights/skipped_steps"] < whole[8]["weights/skipped_steps"]
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    (cut / "manifest.json").unlink()
    for step in (6, 8):
        shutil.rmtree(cut / "checkpoints" / f"step_{step:07d}")
    resumed = train(run, cut, **machine)
    for step in range(5, 9):
        for metric in ("train/loss", "weights/skipped_steps"):
            assert resumed[step][metric] == whole[step][metric]


def test_a_run_that_stopped_goes_on_without_the_step(tiny_run: MakeRun, tmp_path: Path) -> None:
    """And comes to the weights of one that skips from the start."""

    def run(action: str) -> RunConfig:
        return tiny_run(training={"length": {"steps": 6}, "on_bad_step": SPIKE | {"action": action}})

    with pytest.raises(BadStepError, match=r"the median of the last 2 steps.* go on without the step"):
        train(run("stop"), tmp_path / "stopped", checkpoints=CheckpointSettings(every_steps=2))
    assert not (tmp_path / "stopped" / "manifest.json").exists()
    train(run("skip"), tmp_path / "stopped", checkpoints=CheckpointSettings(every_steps=2))
    train(run("skip"), tmp_path / "skipping")
    digests = [
        json.loads((tmp_path / name / "manifest.json").read_text())["digest"]
        for name in ("stopped", "skipping")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_workers_skip_alike_and_one_process_runs_their_step_again(
    ray_cluster: None, tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(training={"length": {"steps": 8}, "on_bad_step": SPIKE | {"action": "skip"}})
    alone = train(run, tmp_path / "alone")
    shared = train(run, tmp_path / "shared", num_workers=2)
    for step in alone:
        assert shared[step]["weights/skipped_steps"] == alone[step]["weights/skipped_steps"]
    folder = min((tmp_path / "shared" / "bad_steps").iterdir())
    assert len(list(folder.glob("batch_*.pt"))) == 2
    found = replay(folder)
    assert found.loss == pytest.approx(found.saved_loss, rel=1e-5)
    assert found.grad_norm == pytest.approx(
        json.loads((folder / "step.json").read_text())["grad_norm"], rel=1e-4
    )
    assert found.has_same_masks


def test_a_folder_without_a_step_is_refused_in_one_line(tmp_path: Path) -> None:
    result = vlp("replay", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == (
        f"vlp: {tmp_path} is not a saved step: it has no step.json; choose a folder of a run's bad_steps/\n"
    )
