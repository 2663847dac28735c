"""The length of a run decides how many steps it has, before it starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipelines.checkpoints.checkpoint import find_checkpoint, read_run
from pipelines.commands.main import main
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build, to_dict
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from tests.pipelines.runs import pretrain
from vlp.run import RunConfig
from vlp.training.length import LengthConfig

MakeRun = Callable[..., RunConfig]
PATCHES, CAPTION, BATCH = 16, 16, 8
"""Of the tiny run: patches of an image, places of a caption, pairs of a step."""


def paid(length: dict[str, float], **more: Any) -> dict[str, Any]:
    return {"training": {"batch_size": BATCH, "length": length} | more}


def test_steps_are_in_the_inverse_ratio_of_what_is_visible(tiny_run: MakeRun) -> None:
    length = paid({"visible_tokens": 8 * 20 * 24 * 32})
    full = tiny_run(**length, mask={"name": "none"})
    half = tiny_run(**length, mask={"name": "random", "mask_ratio": 0.5})
    quarter = tiny_run(**length, mask={"name": "random", "mask_ratio": 0.75})
    for run, patches in ((full, 16), (half, 8), (quarter, 4)):
        assert run.num_steps * BATCH * (patches + CAPTION) == 8 * 20 * 24 * 32
    assert half.num_steps / full.num_steps == (PATCHES + CAPTION) / (8 + CAPTION)


def test_only_what_is_encoded_counts(tiny_run: MakeRun) -> None:
    """SuperClass has no text encoder, and SimMIM's image encoder reads mask tokens, too."""
    length = paid({"visible_tokens": BATCH * PATCHES * 30})
    assert tiny_run(**length, objective={"name": "superclass"}).num_steps == 60
    simmim = tiny_run(**length, objective={"name": "simmim"}, mask={"name": "grid", "cell_size": 2})
    assert simmim.num_steps == 30


def test_samples_are_those_of_all_batches(tiny_run: MakeRun) -> None:
    assert tiny_run(**paid({"samples": 47})).num_steps == 5
    assert tiny_run(**paid({"samples": 48.0})).num_steps == 6


@pytest.mark.parametrize("part", ["", "tuning."])
def test_a_warmup_as_long_as_the_steps_is_refused_in_one_line(tiny_run: MakeRun, part: str) -> None:
    for warmup in (1, 2, 3):
        schedule = {"lr_schedule": {"warmup_steps": warmup}}
        changes = {"tuning": {"steps": 2, "lr": 1e-5} | schedule} if part else schedule
        run = tiny_run(**changes, training={"length": {"steps": 2}})
        if warmup < 2:
            resolve(run, MachineConfig(num_workers=0))
            continue
        with pytest.raises(ConfigError) as refused:
            resolve(run, MachineConfig(num_workers=0))
        said = f"{part}lr_schedule.warmup_steps is {warmup}, and there are 2 steps: the warmup would be all; "
        assert str(refused.value).endswith(said + "lower warmup_steps, or train longer")


def matrix_flops(visible: int) -> int:
    """Of one pair of the tiny contrastive run, forward and backward: twice the products, thrice the pass.

    The pixels need no gradient, so the embedding of patches is done twice and not thrice.
    """
    width, patches = 16, PATCHES * (8 * 8 * 3) * 16

    def block(tokens: int) -> int:
        linear = tokens * (3 * width * width + width * width + 2 * 4 * width * width)
        return linear + 2 * tokens * tokens * width

    image = 2 * block(1 + visible) + width * 8
    text = block(CAPTION) + width * 8
    return 2 * (3 * (image + text + 2 * BATCH * 8) + 2 * patches)


@pytest.mark.parametrize(("mask", "visible"), [({"name": "none"}, 16), ({"name": "random"}, 8)])
def test_flops_are_those_of_the_matrix_products(
    mask: dict[str, Any], visible: int, tiny_run: MakeRun
) -> None:
    step = BATCH * matrix_flops(visible)
    run = tiny_run(**paid({"flops": 1e6 * step}), mask=mask)
    assert run.num_steps == pytest.approx(1e6, rel=0.05)


@pytest.mark.parametrize("file", sorted(Path("conf/run").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_flops_of_every_recipe_are_counted(file: Path, tmp_path: Path) -> None:
    settings = ["training.length.flops=1e21"]
    if file.stem.endswith("fine_tuning"):
        (tmp_path / "classes.txt").write_text("\n".join(map(str, range(1000))))
        settings.append(f"tokenizer.path={tmp_path}/classes.txt")
    if file.stem == "superclass_l14":
        pytest.skip("a network of some size")
    shown = CliRunner().invoke(main, ["print-config", str(file), *settings])
    assert shown.exit_code == 0, shown.stderr
    assert "training.length.flops 1e+21 pays for" in shown.stdout


def test_the_printed_settings_are_those_of_the_run_and_say_its_steps(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(**paid({"samples": 800}))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
    shown = CliRunner().invoke(main, ["print-config", str(tmp_path / "run.yaml")])
    assert shown.stdout.endswith("# tiny: training.length.samples 800 pays for 100 steps of 8 pairs\n")
    (tmp_path / "again.yaml").write_text(shown.stdout)
    again = CliRunner().invoke(main, ["print-config", str(tmp_path / "again.yaml")])
    assert again.stdout == shown.stdout
    changed = CliRunner().invoke(
        main, ["print-config", str(tmp_path / "again.yaml"), "training.batch_size=16"]
    )
    assert "pays for 50 steps of 16 pairs" in changed.stdout


def test_the_printed_settings_say_what_a_rate_becomes_at_the_size_of_the_batches() -> None:
    shown = CliRunner().invoke(main, ["print-config", "conf/run/mae.yaml", "training.batch_size=256"])
    assert shown.stdout.endswith(
        "# mae: optimizer.lr 0.0024 is meant for batches of 4,096 (optimizer.lr_batch_size): "
        "0.00015 for those of 256\n"
    )


def test_a_run_of_samples_is_the_one_of_its_steps(tiny_run: MakeRun, tmp_path: Path) -> None:
    """With the masks of an epoch, the rates, and the tuning that follows."""
    tuning = {"steps": 1, "lr": 1e-5}
    digests = []
    for name, training in (
        ("samples", paid({"samples": 32})),
        ("steps", {"training": {"length": {"steps": 4}}}),
    ):
        run = tiny_run(**training, tuning=tuning)
        assert run.num_steps == 5
        journal = Journal(tmp_path / f"journal-{name}")
        journal.begin(name=run.name, tags={})
        machine = MachineConfig(num_workers=0)
        digests.append(pretrain(run, tmp_path / name, machine=machine, journal=journal).digest)
        assert read_run(find_checkpoint(tmp_path / name)) == run
    assert digests[0] == digests[1]


def test_a_length_of_seconds_is_of_steps_once_their_pace_was_measured(
    tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a threshold that is searched before and within the training; nothing of the measurement stays."""
    mask = {"name": "cluster", "feature": "embedding", "anchor_ratio": 0.2, "recalibrations": 4}
    more = {"mask": mask, "lr_schedule": {"warmup_steps": 0}}  # a busy machine takes few steps
    run, output = tiny_run(**paid({"seconds": 1.0}), **more), tmp_path / "run"
    machine, journal = MachineConfig(num_workers=0, log_every_steps=1), Journal(tmp_path / "journal")
    journal.begin(name=run.name, tags={})
    first = pretrain(run, output, machine=machine, journal=journal)
    said = capsys.readouterr().out
    length = read_run(find_checkpoint(output)).training.length
    assert length.seconds_per_step is not None
    assert first.steps == int(1.0 / length.seconds_per_step)
    assert f"training.length.seconds 1 pays for {first.steps:,} steps" in said
    records = [record.fields for record in journal.read() if record.kind == "metrics"]
    steps = [fields["step"] for fields in records if "worker/batch_time" in fields["metrics"]]
    assert steps == list(range(1, first.steps + 1))
    assert not (output / "pace").exists()

    again = pretrain(run, output, machine=machine, journal=journal)
    assert again == first
    assert "measuring the pace" not in capsys.readouterr().out
    known = tiny_run(**paid({"seconds": 1.0, "seconds_per_step": length.seconds_per_step}), **more)
    Journal(tmp_path / "other").begin(name=run.name, tags={})
    other = pretrain(known, tmp_path / "known", machine=machine, journal=Journal(tmp_path / "other"))
    assert other.digest == first.digest


def test_images_that_show_fewer_patches_are_charged_what_is_seen_of_them(
    tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = 2000
    mask = {"name": "cluster", "anchor_ratio": 0.2, "target_mask_ratio": 0.7, "min_mask_ratio": 0.2}
    run, output = tiny_run(**paid({"visible_tokens": budget}), mask=mask), tmp_path / "run"
    with pytest.raises(ValueError, match="known once the mask is calibrated"):
        _ = run.num_steps
    journal = Journal(tmp_path / "journal")
    journal.begin(name=run.name, tags={})
    machine = MachineConfig(num_workers=0, log_every_steps=1)
    first = pretrain(run, output, machine=machine, journal=journal)
    length = read_run(find_checkpoint(output)).training.length
    seen = length.visible_patches
    assert seen is not None
    assert f"the mask shows {seen:g} patches of an image in the mean, in 12 slots" in capsys.readouterr().out
    assert first.steps == int(budget / (BATCH * (seen + CAPTION)))
    records = [record.fields["metrics"] for record in journal.read() if record.kind == "metrics"]
    ratios = [metrics["view/mask_ratio"] for metrics in records if "view/mask_ratio" in metrics]
    assert sum(ratios) / len(ratios) == pytest.approx(1 - seen / PATCHES, abs=0.05)
    assert pretrain(run, output, machine=machine, journal=journal) == first
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
    shown = CliRunner().invoke(main, ["print-config", str(tmp_path / "run.yaml")])
    assert "at most 12 patches of an image" in shown.stdout


def test_what_a_length_of_seconds_pays_for_is_not_known_from_its_settings(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(**paid({"seconds": 60}))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
    shown = CliRunner().invoke(main, ["print-config", str(tmp_path / "run.yaml")])
    assert shown.stdout.endswith("60 pays for steps at the pace that is measured before the first one\n")
    with pytest.raises(ValueError, match="known once training starts"):
        _ = run.num_steps


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"steps": 3, "samples": 8}, r"training\.length\.steps or samples: set exactly one"),
        ({}, r"length\.steps or samples or visible_tokens or flops or seconds: set exactly"),
        ({"flops": 1, "seconds_per_step": 2}, r"seconds_per_step is 2, and .* leave it"),
        ({"samples": 8, "flops": 8}, r"length\.samples or flops: set exactly one"),
        ({"flops": -1}, r"length\.flops must be above 0, got -1"),
        ({"steps": -1}, r"length\.steps must not be negative, got -1"),
    ],
)
def test_a_length_that_decides_nothing_is_refused(length: dict[str, float], message: str) -> None:
    run = {"name": "x", "objective": {"name": "contrastive"}, "training": {"length": length}}
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, Layers().add(run, "x.yaml"))


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"samples": 7}, r"^training\.length\.samples is 7, and one step takes 8"),
        ({"visible_tokens": 7}, r"visible_tokens is 7, and one step takes 192"),
        ({"flops": 7}, r"flops is 7, and one step takes"),
        ({"seconds": 1, "seconds_per_step": 2}, r"seconds is 1, and one step takes 2"),
    ],
)
def test_a_length_that_pays_for_no_step_is_refused_before_any_work(
    length: dict[str, float], message: str, tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(**paid(length))
    with pytest.raises(ConfigError, match=message):
        resolve(run, MachineConfig(num_workers=0))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
    shown = CliRunner().invoke(main, ["print-config", str(tmp_path / "run.yaml")])
    assert shown.exit_code == 2
    assert shown.stderr.count("\n") == 1


def test_naming_another_measure_replaces_the_one_of_a_file(tiny_run: MakeRun) -> None:
    file = Layers().add(to_dict(tiny_run()), "run.yaml")
    for key, value in {"samples": 1e6, "flops": 1e15, "seconds": 60.0, "steps": 7}.items():
        length = build(RunConfig, file.set({f"training.length.{key}": value}, "command line")).training.length
        assert length == LengthConfig(**{key: value})
    measured = file.set({"training.length": {"seconds": 60, "seconds_per_step": 0.5}}, "other.yaml")
    longer = build(RunConfig, measured.set({"training.length.seconds": 90}, "command line")).training.length
    assert longer == LengthConfig(seconds=90, seconds_per_step=0.5)
    fewer = build(RunConfig, measured.set({"training.length.steps": 9}, "command line")).training.length
    assert fewer == LengthConfig(steps=9)


def test_steps_of_flops_are_counted_once_they_are_asked_for(tiny_run: MakeRun) -> None:
    run = tiny_run(**paid({"flops": 1e12}))
    assert "num_masked_steps" not in vars(run)
    counted = run.num_masked_steps
    assert vars(run)["num_masked_steps"] == counted > 0
