"""Plans of runs, pipelines and sweeps: their numbers, and what these rest on."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.config.machine import MachineConfig
from pipelines.estimates.rates import Rate, Rates
from tests.paths import REPOSITORY
from vlp.run import RunConfig, memory_of_step
from vlp.shards.storage.local import LocalFolder
from vlp.training.example import example_of
from vlp.training.memory import COPIES, kept_bytes

PIPELINE = """
name: small
corpus: {name: tiny_world, num_train: 600, num_heldout: 64, image_size: 64}
serve: {port: 8977}
download: {image_size: 64, number_sample_per_shard: 100}
docfreq: {tokenizer: &tokenizer {name: clip_bpe, context_length: 40}}
common:
  tokenizer: *tokenizer
  image_encoder: {image_size: 64, patch_size: 8, width: 64, depth: 2, num_heads: 2}
  training: {length: {steps: 200}, batch_size: 64, precision: fp32}
  optimizer: {lr: 1e-3, lr_batch_size: 64}
  lr_schedule: {warmup_steps: 10}
runs:
  - base: conf/run/clip.yaml
    objective: {embed_dim: 64, text_encoder: {width: 64, depth: 1, num_heads: 2}}
"""


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files name others of conf/ by paths from there."""
    monkeypatch.chdir(REPOSITORY)


def planned(*arguments: str) -> dict[str, tuple[str, str]]:
    """What `vlp plan` says: of each line its value, and what that rests on."""
    done = CliRunner().invoke(main, ["plan", *arguments])
    assert done.exit_code == 0, done.output
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=2) for line in done.output.splitlines()]
    return {what: (value, rests_on) for what, value, rests_on in rows}


def test_a_billion_pairs_are_what_the_readme_says(tmp_path: Path) -> None:
    settings = ("conf/pipeline/cc12m.yaml", "conf/machine/cluster.yaml", f"machine.storage={tmp_path}")
    methods = ("only=[clip,flip]", "seeds=1")
    plan = planned(*settings, *methods, "--urls", "1e9", "--price", "2", "--budget", "1000")
    assert plan["images"] == (
        "700,000,000 of 1,000,000,000 URLs",
        "--urls, the manual's share of a web list",
    )
    assert plan["files"][0] == "400,000"
    assert plan["disk"][0] == "16.4 TB"
    assert plan["network"][0] == "155.6 hours"
    assert "assumed and not measured" in plan["train clip"][1]
    hours = [float(plan[f"train {name}"][0].split()[0]) for name in ("clip", "flip")]
    assert hours[1] < 0.6 * hours[0]
    assert float(plan["cost"][0].replace(",", "")) == pytest.approx(2 * float(plan["GPU hours"][0]), rel=0.01)


def test_a_list_that_is_elsewhere_is_asked_for() -> None:
    done = CliRunner().invoke(main, ["plan", "conf/pipeline/cc12m.yaml"])
    assert done.exit_code == 2
    assert "cc12m.tsv is not here to be counted; give the number of its URLs by --urls" in done.output


def test_measured_rates_are_read_from_the_storage_and_named(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(PIPELINE)
    machine = MachineConfig(storage=LocalFolder(tmp_path), num_workers=0, data_workers=0)
    rates = Rates.read(machine)
    assert rates.measured == {}
    rates.with_measured({"download": Rate(10, 5, "measured here")}).write(machine)
    settings = (str(file), "machine.num_workers=0", "machine.data_workers=0", f"machine.storage={tmp_path}")
    plan = planned(*settings)
    value, rests_on = plan["download"]
    assert rests_on == "measured here"
    cores = int(value.split()[3])
    assert value.startswith(f"{5 + 600 / (10 * cores):.1f} s")
    assert plan["docfreq"][1].startswith("manual")


def test_a_run_and_a_sweep_have_plans(tmp_path: Path) -> None:
    storage = f"machine.storage={tmp_path}"
    run = planned("conf/run/flip.yaml", storage)
    assert "train flip" in run
    assert "download" not in run
    sweep = planned("conf/sweep/anchor_ratio.yaml", "conf/machine/laptop.yaml", storage)
    assert any(re.fullmatch(r"train cluster_rgb x 4(, \d at once)?", what) for what in sweep)


def test_memory_is_counted_as_it_is_kept(tiny_run: Callable[..., RunConfig]) -> None:
    run = tiny_run()
    with torch.device("cpu"):
        vocabulary = run.vocabulary(run.tokenizer.build())
        example = example_of(run.objective, run.image_encoder, run.mask, vocabulary=vocabulary, batch_size=4)
    counted = memory_of_step(run, 4)
    assert counted.weights == COPIES * sum(weight.nbytes for weight in example.model.parameters())
    assert counted.activations == pytest.approx(kept_bytes(example), rel=0.2)
    assert memory_of_step(run, 8).activations == pytest.approx(2 * counted.activations, rel=0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_measured_is_what_later_plans_rest_on(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(PIPELINE)
    settings = [str(tmp_path / "small.yaml"), "machine.num_workers=0", "machine.data_workers=0"]
    settings.append(f"machine.storage={tmp_path}")
    before = planned(*settings)
    command = [sys.executable, "-m", "pipelines", "plan", "--measure", *settings]
    subprocess.run(command, check=True, capture_output=True)
    after = planned(*settings)
    stages = ["start", "corpus", "download", "docfreq", "train clip", "evaluate clip", "report"]
    assert [stage for stage in stages if "measured on" in before[stage][1]] == []
    assert [stage for stage in stages if "measured on" not in after[stage][1]] == []
