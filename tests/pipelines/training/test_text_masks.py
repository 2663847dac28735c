"""Captions that are read in part: a run goes on to the bit, is tuned on whole captions, and counted right."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.errors import ConfigError, UserError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.config.settings import Layers, build, read_yaml
from pipelines.sweeps.checks import check_sweep
from pipelines.sweeps.settings import SweepConfig
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from pipelines.workflow.plan import LATER, Plan
from tests.paths import REPOSITORY
from tests.pipelines.runs import pretrain
from vlp.run import RunConfig, flops_of_step, visible_tokens
from vlp.text_masking import TEXT_MASKS
from vlp.tokenizers.document_frequency import DocumentFrequency

MakeRun = Callable[..., RunConfig]
FREQUENCY = {"name": "frequency", "num_tokens": 4, "threshold": 1e-3}


def train(run: RunConfig, output: Path, **machine: Any) -> str:
    """Train in this process; returns the digest of the weights."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    settings = MachineConfig(num_workers=0, log_every_steps=1, **machine)
    return pretrain(run, output, machine=settings, journal=journal).digest


@pytest.fixture
def table(tiny_run: MakeRun, tmp_path: Path) -> Path:
    """Counts of the run's tokens, of which low ids are frequent."""
    tokenizer = tiny_run().tokenizer.build()
    counts = (1e6 / np.arange(1, tokenizer.vocab_size + 1)).astype(np.int64)
    file = tmp_path / "df.parquet"
    DocumentFrequency(counts, int(counts.max()), tokenizer.identity, counts).write(file, tokenizer)
    return file


def test_a_run_that_goes_on_ends_with_the_bits_of_one_that_was_not_stopped(
    tiny_run: MakeRun, table: Path, tmp_path: Path
) -> None:
    run = tiny_run(
        text_mask=FREQUENCY,
        data={"document_frequency": str(table)},
        training={"length": {"steps": 4}},
        tuning={"steps": 2, "lr": 1e-4},
    )
    machine = {"checkpoints": CheckpointSettings(every_steps=1, keep=9)}
    whole = train(run, tmp_path / "whole", **machine)
    assert whole != train(tiny_run(training={"length": {"steps": 4}}), tmp_path / "unmasked")
    for left in (2, 5):
        cut = tmp_path / f"cut-{left}"
        shutil.copytree(tmp_path / "whole", cut)
        (cut / "manifest.json").unlink()
        for step in range(left + 1, 7):
            shutil.rmtree(cut / "checkpoints" / f"step_{step:07d}")
        assert train(run, cut, **machine) == whole
        assert json.loads((cut / "manifest.json").read_text())["digest"] == whole


def test_frequencies_have_to_be_counted_first(tiny_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="data: text_mask is frequency: set"):
        resolve(tiny_run(text_mask=FREQUENCY), MachineConfig(num_workers=0))


def test_captions_that_are_not_read_cannot_be_masked(tiny_run: MakeRun) -> None:
    mae = {"name": "mae", "decoder_width": 16, "decoder_heads": 2}
    with pytest.raises(UserError, match="text_mask random hides words, but objective mae reads no captions"):
        tiny_run(objective=mae, text_mask={"name": "random", "num_tokens": 4})
    with pytest.raises(UserError, match=r"num_tokens is 999 and tokenizer.context_length \d+: nothing"):
        tiny_run(text_mask={"name": "random", "num_tokens": 999})


def test_a_step_costs_what_is_read(tiny_run: MakeRun) -> None:
    whole, masked = tiny_run(), tiny_run(text_mask={"name": "random", "num_tokens": 4})
    lengths = whole.tokenizer.context_length, 4
    assert visible_tokens(whole) - visible_tokens(masked) == lengths[0] - lengths[1]
    text = whole.objective.text_encoder  # pyright: ignore[reportAttributeAccessIssue]
    costs = [
        6 * 12 * text.width**2 * text.depth * T + 12 * T**2 * text.width * text.depth for T in lengths
    ]  # three passes through 12 D^2 weights and two products of attention
    saved = flops_of_step(whole, 1) - flops_of_step(masked, 1)
    assert saved == pytest.approx(costs[0] - costs[1], rel=0.1)


def test_the_sweep_over_patches_and_words_is_one_that_can_be_tried() -> None:
    files = (REPOSITORY / "conf/pipeline/text_masks.yaml", REPOSITORY / "conf/sweep/text_tokens.yaml")
    plan = Plan.read(Layers().add(read_yaml(files[0]), str(files[0])))
    runs = {run.name: run for run in plan.runs(LATER, LATER)}
    assert {run.text_mask.name for run in runs.values()} == TEXT_MASKS.keys()
    assert runs["frequency"].data.document_frequency == LATER / "document_frequency.parquet"
    sweep = build(SweepConfig, Layers().add(read_yaml(files[1]), str(files[1])))
    check_sweep(sweep, plan.config, runs, MachineConfig())
