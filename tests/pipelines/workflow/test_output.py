"""The output is part of the product: a pipeline with Ray prints lines of ours, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

PIPELINE = """
name: small
baseline: clip
corpus: {name: tiny_world, num_train: 120, num_heldout: 20, image_size: 32}
serve: {failures: {http_404: 0.05}}
download: {image_size: 32, number_sample_per_shard: 60, retries: 0}
docfreq: {tokenizer: &tokenizer {name: clip_bpe, context_length: 16}}
common:
  tokenizer: *tokenizer
  image_encoder: {image_size: 32, patch_size: 8, width: 16, depth: 2, num_heads: 2}
  training: {length: {steps: 4}, batch_size: 16, precision: fp32}
  lr_schedule: {warmup_steps: 1}
runs:
  - base: conf/run/clip.yaml
    objective: &small {embed_dim: 8, text_encoder: {width: 16, depth: 1, num_heads: 2}}
  - base: conf/run/cluster_rgb.yaml
    objective: *small
  - base: conf/run/superclass.yaml
    objective: {idf: offline}
"""
STAGE = r"\[(corpus|download|docfreq|pretrain/\w+|evaluate/\w+|step_times|report)\] "
OURS = re.compile(
    rf"{STAGE}(-> |unchanged: )\S+|{STAGE}done in \d+ s"
    r"|\[(download|docfreq|pretrain \w+)\] [\d,]+/[\d,]+ (URLs|shards|steps)(, \S+ left)?(  .*)?"
    r"|\[pretrain \w+\] calibrating the mask|\[evaluate\] measuring \S+|\[evaluate\] not measured: .*"
    r"|\[tracking\] [\d,]+ records are on their way to \S+"
    r"|±: the farther end .*|\*: stands out .*|time: steps x .*|results: \S+|browse:  .*vlp ui .*"
)
TABLE = re.compile(r"[\s─]*|\s+(Method x|Differences from|T->I|method  |clip  |superclass  |\(chance\)  ).*")


TWO_RUNS = """
runs:
  - base: conf/run/clip.yaml
    objective: {embed_dim: 8, text_encoder: {width: 16, depth: 1, num_heads: 2}}
  - base: conf/run/superclass.yaml
    mask: {name: cluster, target_mask_ratio: 0.5}
    objective: {idf: offline}
"""
"""All that is printed of the three: a mask is calibrated, and what needs a text encoder is not measured."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pipeline") / "small.yaml"
    file.write_text(PIPELINE.partition("runs:")[0] + TWO_RUNS.lstrip())
    return file


def run(pipeline: Path, *settings: str) -> str:
    """Everything that `vlp run` prints."""
    command = [sys.executable, "-m", "pipelines", "run", str(pipeline), "conf/machine/laptop.yaml", *settings]
    done = subprocess.run(
        [*command, f"machine.storage={pipeline.parent / 'results'}"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def times(output: str) -> list[str]:
    """Of the methods, as the table has them."""
    return re.findall(r"^  \w+ .* (\d+\.\d\dx) *$", output, re.MULTILINE)


@pytest.mark.timeout(900)  # on a busy machine
def test_every_line_is_ours_and_what_is_done_is_kept(pipeline: Path) -> None:
    first = run(pipeline)
    lines = first.splitlines()
    assert [line for line in lines if not (OURS.fullmatch(line) or TABLE.fullmatch(line))] == []
    assert sum("4/4 steps" in line for line in lines) == 2
    assert any("calibrating" in line for line in lines)
    assert any("not measured" in line for line in lines)
    clip, superclass = times(first)
    assert clip == "1.00x"
    assert float(superclass[:-1]) > 0
    page = pipeline.parent / "results" / "small" / "README.md"
    linked = re.findall(r"\]\((\S+)\)", page.read_text())
    assert len(linked) == 14
    assert all((page.parent / link).exists() for link in linked)
    # Other settings of a later stage: the earlier ones are not run again, nor are the methods timed again.
    second = run(pipeline, "evaluation.protocols.knn.k=3")
    assert [line for line in second.splitlines() if not (OURS.fullmatch(line) or TABLE.fullmatch(line))] == []
    assert {re.split(r"[\[\]]", line)[1] for line in second.splitlines() if "] unchanged: " in line} == {
        "corpus",
        "download",
        "docfreq",
        "pretrain/clip",
        "pretrain/superclass",
        "step_times",
    }
    assert times(second) == [clip, superclass]
