"""What a small pipeline takes is what its plan has said, with the rates that were measured before."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import pytest

from pipelines.tracking.journal import Journal
from tests.paths import REPOSITORY
from tests.servers.ports import free_port
from vlp.shards.published import files_below

PIPELINE = """
name: small
corpus: {name: tiny_world, num_train: 4000, num_heldout: 128, image_size: 64}
serve: {port: PORT}
download: {image_size: 64, number_sample_per_shard: 250}
docfreq: {tokenizer: &tokenizer {name: clip_bpe, context_length: 40}}
common:
  tokenizer: *tokenizer
  image_encoder: {image_size: 64, patch_size: 8, width: 128, depth: 4, num_heads: 4}
  training: {length: {steps: 300}, batch_size: 64, precision: fp32}
  optimizer: {lr: 1e-3, lr_batch_size: 64}
  lr_schedule: {warmup_steps: 10}
runs:
  - base: conf/run/cluster_rgb.yaml
    objective: {embed_dim: 128, text_encoder: {width: 128, depth: 2, num_heads: 4}}
machine: {num_workers: 1, data_workers: 2, checkpoints: {every_steps: 100}}
"""
NAMES, STEPS, BATCH, PATCHES, CONTEXT = ("cluster_rgb",), 300, 64, 64, 40
UNITS = {"s": 1.0, "minutes": 60.0, "hours": 3600.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
TOLERANCE = 0.3


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def forecast(said: str) -> dict[str, float]:
    """The numbers of a plan, in seconds, bytes and tokens; what belongs to a run by `RUN what`."""
    found, name = {}, ""
    for line in said.splitlines():
        what, value = line[:28].strip(), line[28:].strip()
        if line.startswith("train "):
            name = what.removeprefix("train ")
        if number := re.match(r"([\d.,]+(?:e[+\d]+)?) ?(\w*)", value):
            key = f"{name} {what}" if line.startswith("  ") else what
            found[key] = float(number[1].replace(",", "")) * UNITS.get(number[2], 1.0)
    return found


def seconds_of_stages(said: str) -> Mapping[str, int]:
    """What the stages have taken, by name."""
    return {name: int(seconds) for name, seconds in re.findall(r"^\[(\S+)\] done in (\d+) s", said, re.M)}


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in files_below(folder))


def found_on_disk(storage: Path) -> dict[str, float]:
    """What the pipeline has made: bytes, and what its encoders have read."""
    made, found = storage / "small", {}
    (shards,) = made.glob("download-*")
    found["disk"] = size(shards)
    for name in NAMES:
        (trained,) = made.glob(f"pretrain/{name}-*")
        (record,) = (storage / "journals" / "small").glob(f"pretrain/{name}-*")
        logged = [one.fields["metrics"] for one in Journal(record).read() if one.kind == "metrics"]
        hidden = mean(metrics["view/mask_ratio"] for metrics in logged if "view/mask_ratio" in metrics)
        found[f"{name} visible tokens"] = STEPS * BATCH * (PATCHES * (1 - hidden) + CONTEXT)
        weights = max(file.stat().st_size for file in trained.rglob("model.safetensors"))
        found[f"{name} checkpoints"] = size(trained / "checkpoints") + weights
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_pipeline_takes_what_its_plan_says(tmp_path: Path) -> None:
    file, storage = tmp_path / "small.yaml", tmp_path / "results"
    file.write_text(PIPELINE.replace("PORT", str(free_port())))
    arguments = (str(file), f"machine.storage={storage}")
    said = forecast(run("plan", "--measure", *arguments))
    start = time.monotonic()
    output = run("run", *arguments)
    took = {"in all": time.monotonic() - start, **found_on_disk(storage)}
    stages = seconds_of_stages(output)
    took |= {f"train {name}": stages[f"pretrain/{name}"] for name in NAMES}
    table = "\n".join(f"{what:28} {said[what]:12.4g} {value:12.4g}" for what, value in took.items())
    print(table)
    off = {what: value for what, value in took.items() if abs(said[what] / value - 1) > TOLERANCE}
    assert not off, table
