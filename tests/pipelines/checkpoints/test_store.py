"""A broken checkpoint costs the steps since the one before it, and never the result; old ones make room."""

import itertools
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.checkpoints.checkpoint import CONFIG, TRAINING, load_model
from pipelines.checkpoints.store import (
    Retention,
    Saved,
    find_damage,
    list_saved,
    newest_whole,
    write_manifest,
)
from pipelines.config.errors import UserError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.checkpoint import MODEL, SETTINGS
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST

MakeRun = Callable[..., RunConfig]
# All that a run has to remember: averaged weights, and a threshold that follows them.
RUN = {
    "mask": {"name": "cluster", "feature": "mix", "anchor_ratio": 0.2, "min_mask_ratio": 0.2},
    "training": {"length": {"steps": 6}, "ema": {"decay": 0.5, "chooses_masks": True}},
}


def train(run: RunConfig, output: Path, *, num_workers: int = 0, **checkpoints: Any) -> str:
    """Train, in this process unless there are workers; returns the digest of the weights."""
    settings = replace(CheckpointSettings(every_steps=2, keep=3), **checkpoints)
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    machine = MachineConfig(num_workers=num_workers, checkpoints=settings)
    return pretrain(run, output, machine=machine, journal=journal).digest


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES = {
    "cut": (cut, "bytes"),
    "bit": (flip_a_bit, "has other content than was written"),
    "lost": (Path.unlink, "is missing"),
    "empty": (empty, "bytes"),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run, trained when it is first asked for."""
    return {"folder": tmp_path_factory.mktemp("undisturbed") / "run"}


@pytest.fixture
def finished(undisturbed: dict[str, Any], tiny_run: MakeRun, tmp_path: Path) -> tuple[RunConfig, Path, str]:
    """A run, a folder in which it has finished, and the digest of its weights."""
    run = tiny_run(**RUN)
    if "digest" not in undisturbed:
        undisturbed["digest"] = train(run, undisturbed["folder"])
    return run, Path(shutil.copytree(undisturbed["folder"], tmp_path / "run")), undisturbed["digest"]


@pytest.mark.parametrize("file", [MODEL, TRAINING, SETTINGS, CONFIG, MANIFEST])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_a_broken_one_leads_to_the_same_weights(
    damage: str,
    file: str,
    finished: tuple[RunConfig, Path, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, folder, digest = finished
    newest = folder / "checkpoints" / "step_0000006"
    harm, reason = DAMAGES[damage]
    harm(newest / file)
    assert train(run, folder) == digest
    said = [line for line in capsys.readouterr().out.splitlines() if "broken" in line]
    assert len(said) == 1
    assert re.fullmatch(
        rf"\[pretrain tiny\] checkpoint step_0000006 is broken: .*({reason}|{MANIFEST}).*; "
        "going on from step_0000004",
        said[0],
    )
    assert find_damage(newest) is None
    assert not list(folder.glob("checkpoints/*.broken"))


def test_several_broken_ones_are_passed_over_and_a_deleted_one_is_not_missed(
    finished: tuple[RunConfig, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder, digest = finished
    flip_a_bit(folder / "checkpoints" / "step_0000006" / MODEL)
    cut(folder / "checkpoints" / "step_0000004" / TRAINING)
    assert train(run, folder) == digest
    said = capsys.readouterr().out
    for step in (6, 4):
        assert len(re.findall(rf"step_000000{step} is broken: .*; going on from step_0000002", said)) == 1
    shutil.rmtree(folder / "checkpoints" / "step_0000006")
    assert train(run, folder) == digest
    assert "going on from the checkpoint after step 4" in capsys.readouterr().out


def test_a_run_whose_checkpoints_are_all_broken_leaves_the_choice_to_its_user(
    finished: tuple[RunConfig, Path, str],
) -> None:
    run, folder, digest = finished
    for checkpoint in (folder / "checkpoints").iterdir():
        empty(checkpoint / TRAINING)
    with pytest.raises(
        UserError, match=r"3 checkpoints and all are broken \(step_0000006: its training"
    ) as e:
        train(run, folder)
    assert str(folder / "checkpoints") in str(e.value)
    assert "\n" not in str(e.value)
    assert len(list(folder.glob("checkpoints/step_*"))) == 3
    shutil.rmtree(folder / "checkpoints")  # the remedy that the message names
    assert train(run, folder) == digest


@pytest.mark.slow
def test_workers_go_on_from_the_newest_whole_checkpoint(
    ray_cluster: None, finished: tuple[RunConfig, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """On Ray as in this process: a folder that is gone, and one that is broken."""
    run, folder, digest = finished
    shutil.rmtree(folder / "checkpoints" / "step_0000006")
    flip_a_bit(folder / "checkpoints" / "step_0000004" / TRAINING)
    assert train(run, folder, num_workers=1) == digest
    assert len(re.findall("is broken", capsys.readouterr().out)) == 1
    assert train(run, folder, num_workers=1) == digest  # has nothing left to do


def test_broken_weights_are_not_evaluated(finished: tuple[RunConfig, Path, str]) -> None:
    """Without its manifest, as tracking has it, a model is taken as it is."""
    _, folder, _ = finished
    checkpoint = folder / "checkpoints" / "step_0000006"
    flip_a_bit(checkpoint / MODEL)
    with pytest.raises(UserError, match=r"step_0000006 is broken: its model\.safetensors has other content"):
        load_model(checkpoint, torch.device("cpu"))
    (checkpoint / MANIFEST).unlink()
    load_model(checkpoint, torch.device("cpu"))


@pytest.mark.parametrize("every_steps", [None, 4])
@pytest.mark.parametrize(("last", "best"), list(itertools.product((1, 2), (0, 1, 3))))
def test_what_is_kept_is_the_newest_the_best_and_every_so_many(
    last: int, best: int, every_steps: int | None
) -> None:
    """Checkpoint by checkpoint, as a run writes them, against a look at each one by itself."""
    drawn = random.Random(0)
    scores = {step: drawn.choice([0.1, 0.2, 0.3]) for step in range(1, 13)}
    retention = Retention(last=last, best=best, metric="acc", every_steps=every_steps)
    kept: list[Saved] = []
    for now in scores:
        metrics = {"acc": scores[now]} if now % 2 == 0 else {}
        kept.append(Saved(now, metrics))
        chosen = retention.choose(random.sample(kept, len(kept)))
        kept = [one for one in kept if one.step in chosen]
        for step in range(1, now + 1):
            better = [s for s in range(2, now + 1, 2) if (scores[s], s) > (scores[step], step)]
            is_best = step % 2 == 0 and len(better) < best
            is_kept = step > now - last or is_best or bool(every_steps and step % every_steps == 0)
            assert (step in chosen) == is_kept


def test_a_run_keeps_what_its_machine_asks_for(tiny_run: MakeRun, tiny_world: Path, tmp_path: Path) -> None:
    others = {name: None for name in ("few_shot", "linear_probe", "zero_shot")}
    shapes = {"shapes": str(tiny_world / "classification")}
    evaluation = {"classification": shapes, "protocols": others, "every_steps": 1}
    run = tiny_run(training={"length": {"steps": 7}}, optimizer={"lr": 0.05}, evaluation=evaluation)
    every: dict[str, Any] = {"every_steps": 1, "keep": 1}
    train(run, tmp_path / "all", **every, track="all")
    scores = {
        one.step: one.metrics["val/shapes/knn/acc1"] for one in list_saved(tmp_path / "all/checkpoints")
    }
    assert list(scores) == [1, 2, 3, 4, 5, 6, 7]
    best = max(scores, key=lambda step: (scores[step], step))
    for settings, expected in (
        ({}, {7}),
        ({"keep_best": 1}, {best, 7}),
        ({"keep_every_steps": 3}, {3, 6, 7}),
        ({"track": "best"}, {best, 7}),
    ):
        output = tmp_path / "-".join(settings or ["default"])
        train(run, output, **every | settings)
        assert {one.step for one in list_saved(output / "checkpoints")} == expected
    records = Journal(tmp_path / "journal-track").read()
    assert [record.fields["step"] for record in records if record.kind == "model"] == [best]


def test_half_deleted_checkpoints_are_deleted_and_later_ones_left(tmp_path: Path) -> None:
    for step in (1, 2, 3, 9):
        folder = tmp_path / f"step_{step:07d}"
        folder.mkdir()
        (folder / MODEL).write_text(str(step))
        if step != 2:
            write_manifest(folder, step=step, metrics={})
    Retention(last=2).apply(tmp_path, step=3)
    assert [folder.name[-1] for folder in sorted(tmp_path.iterdir())] == ["1", "3", "9"]
    assert newest_whole(tmp_path, label="x") == tmp_path / "step_0000009"
