"""A budget decides how many steps a run has, before it starts."""

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
from pipelines.config.settings import to_dict
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]
PATCHES, CAPTION, BATCH = 16, 16, 8
"""Of the tiny run: patches of an image, places of a caption, pairs of a step."""


def paid(budget: dict[str, float], **more: Any) -> dict[str, Any]:
    return {"training": {"steps": None, "batch_size": BATCH, "budget": budget} | more}


def test_steps_are_in_the_inverse_ratio_of_what_is_visible(tiny_run: MakeRun) -> None:
    budget = paid({"visible_tokens": 8 * 20 * 24 * 32})
    full = tiny_run(**budget, mask={"name": "none"})
    half = tiny_run(**budget, mask={"name": "random", "mask_ratio": 0.5})
    quarter = tiny_run(**budget, mask={"name": "random", "mask_ratio": 0.75})
    for run, patches in ((full, 16), (half, 8), (quarter, 4)):
        assert run.num_steps * BATCH * (patches + CAPTION) == 8 * 20 * 24 * 32
    assert half.num_steps / full.num_steps == (PATCHES + CAPTION) / (8 + CAPTION)


def test_only_what_is_encoded_counts(tiny_run: MakeRun) -> None:
    """SuperClass has no text encoder, and SimMIM's image encoder reads mask tokens, too."""
    budget = paid({"visible_tokens": BATCH * PATCHES * 30})
    assert tiny_run(**budget, objective={"name": "superclass"}).num_steps == 60
    simmim = tiny_run(**budget, objective={"name": "simmim"}, mask={"name": "grid", "cell_size": 2})
    assert simmim.num_steps == 30


def test_samples_are_those_of_all_batches(tiny_run: MakeRun) -> None:
    assert tiny_run(**paid({"samples": 47})).num_steps == 5
    assert tiny_run(**paid({"samples": 48.0})).num_steps == 6


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
def test_the_flops_of_every_recipe_are_counted(file: Path) -> None:
    settings = ["training.steps=null", "training.budget.flops=1e21"]
    if file.stem == "superclass_l14":
        pytest.skip("a network of some size")
    shown = CliRunner().invoke(main, ["print-config", str(file), *settings])
    assert shown.exit_code == 0, shown.stderr
    assert "training.budget.flops 1e+21 pays for" in shown.stdout


def test_the_printed_settings_are_those_of_the_run_and_say_its_steps(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(**paid({"samples": 800}))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
    shown = CliRunner().invoke(main, ["print-config", str(tmp_path / "run.yaml")])
    assert shown.stdout.endswith("# tiny: training.budget.samples 800 pays for 100 steps of 8 pairs\n")
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


def test_a_run_of_a_budget_is_the_one_of_its_steps(tiny_run: MakeRun, tmp_path: Path) -> None:
    """With the masks of an epoch, the rates, and the tuning that follows."""
    tuning = {"steps": 1, "lr": 1e-5}
    digests = []
    for name, training in (("budget", paid({"samples": 32})), ("steps", {"training": {"steps": 4}})):
        run = tiny_run(**training, tuning=tuning)
        assert run.num_steps == 5
        journal = Journal(tmp_path / f"journal-{name}")
        journal.begin(name=run.name, tags={})
        machine = MachineConfig(num_workers=0)
        digests.append(pretrain(run, tmp_path / name, machine=machine, journal=journal).digest)
        assert read_run(find_checkpoint(tmp_path / name) / "config.yaml") == run
    assert digests[0] == digests[1]


def test_a_budget_of_seconds_is_of_steps_once_their_pace_was_measured(
    tiny_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a threshold that is searched before and within the training; nothing of the measurement stays."""
    mask = {"name": "cluster", "feature": "embedding", "anchor_ratio": 0.2, "recalibrations": 4}
    run, output = tiny_run(**paid({"seconds": 0.3}), mask=mask), tmp_path / "run"
    machine, journal = MachineConfig(num_workers=0, log_every_steps=1), Journal(tmp_path / "journal")
    journal.begin(name=run.name, tags={})
    first = pretrain(run, output, machine=machine, journal=journal)
    said = capsys.readouterr().out
    budget = read_run(find_checkpoint(output) / "config.yaml").training.budget
    assert budget is not None
    assert budget.seconds_per_step is not None
    assert first.steps == int(0.3 / budget.seconds_per_step)
    assert f"training.budget.seconds 0.3 pays for {first.steps:,} steps" in said
    records = [record.fields for record in journal.read() if record.kind == "metrics"]
    steps = [fields["step"] for fields in records if "train/batch_time" in fields["metrics"]]
    assert steps == list(range(1, first.steps + 1))
    assert not (output / "pace").exists()

    again = pretrain(run, output, machine=machine, journal=journal)
    assert again == first
    assert "measuring the pace" not in capsys.readouterr().out
    known = tiny_run(**paid({"seconds": 0.3, "seconds_per_step": budget.seconds_per_step}), mask=mask)
    Journal(tmp_path / "other").begin(name=run.name, tags={})
    other = pretrain(known, tmp_path / "known", machine=machine, journal=Journal(tmp_path / "other"))
    assert other.digest == first.digest


def test_what_a_budget_of_seconds_pays_for_is_not_known_from_its_settings(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(**paid({"seconds": 60}))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
    shown = CliRunner().invoke(main, ["print-config", str(tmp_path / "run.yaml")])
    assert shown.stdout.endswith("60 pays for steps at the pace that is measured before the first one\n")
    with pytest.raises(ValueError, match="known once training starts"):
        _ = run.num_steps


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"steps": 3, "budget": {"samples": 8}},
            r"training\.budget is set, and so is steps.*steps=null",
        ),
        ({"steps": None, "budget": {"samples": 7}}, r"training\.budget\.samples is 7, and one step takes 8"),
        (
            {"steps": None, "budget": {}},
            r"budget\.samples or visible_tokens or flops or seconds: set exactly",
        ),
        (
            {"steps": None, "budget": {"seconds": 1, "seconds_per_step": 2}},
            r"seconds is 1, and one step takes 2",
        ),
        (
            {"steps": None, "budget": {"flops": 1, "seconds_per_step": 2}},
            r"seconds_per_step is 2: .* leave it",
        ),
        ({"steps": None, "budget": {"samples": 8, "flops": 8}}, r"budget\.samples or flops: set exactly one"),
        ({"steps": None, "budget": {"flops": -1}}, r"budget\.flops must be above 0, got -1"),
    ],
)
def test_a_budget_that_decides_nothing_is_refused(
    training: dict[str, Any], message: str, tiny_run: MakeRun
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_run(training={"batch_size": BATCH} | training)
