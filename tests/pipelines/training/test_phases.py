"""What changes in the course of a run: the phase, the threshold of the mask, the averaged weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.checkpoints.checkpoint import (
    TRAINING,
    TrainingState,
    find_checkpoint,
    load_model,
    read_run,
    restore_training,
)
from pipelines.config.errors import UserError
from pipelines.config.machine import CheckpointSettings, MachineConfig, MemorySettings, read_settings
from pipelines.config.settings import build
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain, random_objective
from vlp.masking.cluster import ClusterMask
from vlp.run import RunConfig
from vlp.training.ema import EMA
from vlp.training.optim import build_optimizer

MakeRun = Callable[..., RunConfig]
EMBEDDING = {"name": "cluster", "feature": "embedding", "anchor_ratio": 0.2, "min_mask_ratio": 0.2}
MIX = EMBEDDING | {"feature": "mix", "recalibrations": 3}


def train(run: RunConfig, output: Path, **machine: Any) -> dict[int, dict[str, float]]:
    """Train in this process; returns the metrics of each step."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    pretrain(run, output, machine=MachineConfig(num_workers=0, log_every_steps=1, **machine), journal=journal)
    steps: dict[int, dict[str, float]] = {}
    for record in journal.read():
        if record.kind == "metrics":
            steps.setdefault(record.fields["step"], {}).update(record.fields["metrics"])
    return steps


def test_tuning_sees_whole_images_at_a_rate_of_its_own(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(tuning={"steps": 2, "lr": 1e-5, "lr_schedule": {"warmup_steps": 1}})
    steps = train(run, tmp_path / "run")
    assert [steps[i]["view/mask_ratio"] for i in range(1, 6)] == [0.5, 0.5, 0.5, 0, 0]
    rates = [steps[i]["weights/lr"] for i in range(1, 6)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 1e-5, 1e-5])
    assert read_run(find_checkpoint(tmp_path / "run")) == run


@pytest.mark.parametrize(
    ("file", "batch_size", "peak"),
    [
        ("mae", 256, 1.5e-4),
        ("mae", 4096, 2.4e-3),
        ("simmim_vit", 512, 1e-4),
        ("flip", 2048, 5e-4),
        ("flip_unmasked_tuning", 4096, 1e-3),
        ("clip", 2048, 5e-4),
        ("clip", 256, 6.25e-5),
        ("superclass", 256, 7.8125e-6),
    ],
)
def test_the_papers_rates_are_those_of_their_batch_sizes(file: str, batch_size: int, peak: float) -> None:
    layers, _ = read_settings([f"conf/run/{file}.yaml", f"training.batch_size={batch_size}"])
    run = build(RunConfig, layers)
    assert run.learning_rate(run.lr_schedule.warmup_steps) == pytest.approx(peak, rel=1e-4)


def test_simmims_rate_is_that_of_the_release_whose_cosine_counts_the_warmup() -> None:
    run = build(RunConfig, read_settings(["conf/run/simmim.yaml"])[0])
    assert run.num_steps == 62_500
    rates = [run.learning_rate(step) for step in (0, 6249, 40_750, 62_499)]
    assert rates == pytest.approx([4e-6, 8e-4, 2.4535e-4, 4e-5], rel=2e-3)


def test_unmasked_tuning_has_a_hundredth_of_the_rate_at_any_batch_size() -> None:
    for batch_size in (256, 4096):
        file = "conf/run/flip_unmasked_tuning.yaml"
        run = build(RunConfig, read_settings([file, f"training.batch_size={batch_size}"])[0])
        rates = [run.learning_rate(step) for step in range(run.num_masked_steps, run.num_steps)]
        assert max(rates) == pytest.approx(run.learning_rate(2000) / 100)


def test_all_rates_of_a_run_are_scaled_alike(tiny_run: MakeRun) -> None:
    changes = {"lr_schedule": {"min_lr": 1e-4}, "tuning": {"steps": 3, "lr": 1e-5}}
    plain = tiny_run(**changes)
    scaled = tiny_run(optimizer={"lr_batch_size": 32}, **changes)  # in batches of 8
    assert [4 * scaled.learning_rate(step) for step in range(6)] == pytest.approx(
        [plain.learning_rate(step) for step in range(6)]
    )


def test_the_masked_phase_is_the_one_of_a_run_without_tuning(tiny_run: MakeRun, tmp_path: Path) -> None:
    alone = train(tiny_run(), tmp_path / "alone")
    tuned = train(tiny_run(tuning={"steps": 2, "lr": 1e-5}), tmp_path / "tuned")
    for step in (1, 2, 3):
        assert tuned[step]["train/loss"] == alone[step]["train/loss"]


def test_an_objective_that_needs_a_mask_cannot_be_tuned_without(tiny_run: MakeRun) -> None:
    with pytest.raises(UserError, match="tuning trains on whole images: objective mae rebuilds"):
        tiny_run(
            objective={"name": "mae", "decoder_width": 16, "decoder_heads": 2}, tuning={"steps": 1, "lr": 1}
        )


def test_the_threshold_is_searched_again_as_the_embeddings_move(tiny_run: MakeRun, tmp_path: Path) -> None:
    run = tiny_run(mask=MIX, training={"length": {"steps": 9}}, optimizer={"lr": 0.05})
    steps = train(run, tmp_path / "run", checkpoints=CheckpointSettings(every_steps=4))
    searched = [step for step, values in steps.items() if "view/calibration/threshold" in values]
    assert searched == [3, 6], "what is found before the training is a parameter"
    for step in searched:
        assert steps[step]["view/calibration/mask_ratio"] == pytest.approx(0.5, abs=0.01)
    assert steps[4]["view/alpha"] == pytest.approx(3 / 9)
    assert steps[4]["view/threshold"] == pytest.approx(steps[3]["view/calibration/threshold"])
    tables = [read_run(tmp_path / "run" / "checkpoints" / f"step_{step:07d}").mask for step in (8, 9)]
    assert tables[0] == tables[1]
    assert isinstance(tables[0], ClusterMask)
    assert tables[0].threshold_at(6 / 9) == pytest.approx(steps[6]["view/calibration/threshold"])
    assert tables[0].threshold[0][0] == pytest.approx(6 / 9)  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    "mask", [MIX | {"feature": "rgb"}, EMBEDDING | {"threshold": 0.4}, MIX | {"recalibrations": 0}]
)
def test_a_threshold_that_need_not_move_stays(
    mask: dict[str, Any], tiny_run: MakeRun, tmp_path: Path
) -> None:
    steps = train(tiny_run(mask=mask, training={"length": {"steps": 4}}), tmp_path / "run")
    assert not any("view/calibration/threshold" in values for values in steps.values())


def test_the_averaged_weights_are_the_model_and_the_trained_ones_go_on(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(training={"ema": {"decay": 0.5}})
    train(run, tmp_path / "averaged")
    train(tiny_run(), tmp_path / "plain")
    averaged, plain = (find_checkpoint(tmp_path / name) for name in ("averaged", "plain"))
    trained = torch.load(averaged / TRAINING, weights_only=True)["weights"]
    model, reference = (load_model(folder, torch.device("cpu"))[0] for folder in (averaged, plain))
    for name, weight in reference.state_dict().items():
        assert torch.equal(trained[name], weight), "the average must not change the training"
    name = "image_projection.weight"
    assert not torch.equal(model.state_dict()[name], trained[name])

    objective = random_objective(run)
    assert run.training.ema
    ema = EMA(objective, run.training.ema)
    state = TrainingState(objective, build_optimizer(objective, run.optimizer), ema, run.mask)
    restore_training(averaged, state)
    assert state.step == 3
    assert torch.equal(objective.state_dict()[name], trained[name])
    assert torch.equal(ema.objective.state_dict()[name], model.state_dict()[name])


@pytest.mark.parametrize("memory", [{"batch_parts": 3}, {"checkpoint_activations": True}])
@pytest.mark.parametrize("objective", [{}, {"objective": {"name": "superclass"}}])
def test_saving_memory_changes_no_result(
    memory: dict[str, Any], objective: dict[str, Any], tiny_run: MakeRun, tmp_path: Path
) -> None:
    plain = train(tiny_run(**objective), tmp_path / "plain")
    saving = train(tiny_run(**objective), tmp_path / "saving", memory=MemorySettings(**memory))
    for step in (1, 2, 3):
        for key in ("train/loss", "weights/grad_norm", "view/mask_ratio"):
            assert saving[step][key] == pytest.approx(plain[step][key], rel=1e-4)


def test_a_step_says_how_many_patches_it_saw_and_how_much_memory_it_took(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(mask={"name": "random", "mask_ratio": 0.75})
    for values in train(run, tmp_path / "run").values():
        visible = values["worker/visible_patches_per_second"] / values["worker/samples_per_second"]
        assert visible == pytest.approx(run.image_encoder.num_patches / 4)
        assert 0.1 < values["worker/peak_memory_gib"] < 16
