"""Masks that look at embeddings or attention, or change with the training, go through a whole run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.checkpoints.checkpoint import read_run
from pipelines.checkpoints.store import RunManifest
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.masking.adaptive import AdaptiveClusterMask
from vlp.masking.cluster import ClusterMask
from vlp.run import RunConfig

RISING = {"start": 0.3, "end": 0.6}
JUMP = {"start": 0.5, "end": 0.625, "shape": "step"}  # ratios that the few patches of the test can reach
MASKS = {
    "attention": {"name": "attention"},
    "importance": {"name": "importance", "score": "attention", "temperature": 0.5},
    "kmeans": {"name": "kmeans"},
    "mix": {"name": "cluster", "feature": "mix", "anchor_ratio": 0.1, "recalibrations": 0},
    "adaptive": {"name": "adaptive", "feature": "mix", "anchor_ratio": 0.1, "recalibrations": 0},
    "per image": {"name": "cluster", "threshold": "per_image", "anchor_ratio": 0.1},
    "progressive": {"name": "random", "mask_ratio": RISING},
    "progressive target": {"name": "cluster", "target_mask_ratio": JUMP, "anchor_ratio": 0.1},
}


def train(run: RunConfig, output: Path) -> RunManifest:
    journal = Journal(output / "journal")
    journal.begin(name=run.name, tags={})
    return pretrain(run, output, machine=MachineConfig(num_workers=0, log_every_steps=1), journal=journal)


@pytest.mark.parametrize("mask", MASKS)
def test_a_run_trains_with_the_mask_and_shows_it(
    tiny_run: Callable[..., RunConfig], tmp_path: Path, mask: str
) -> None:
    run = tiny_run(mask=MASKS[mask])
    manifest = train(run, tmp_path)
    assert manifest.digest
    assert (tmp_path / "masks.png").is_file()
    (folder, *_) = sorted((tmp_path / "checkpoints").glob("step_*"))
    saved = read_run(folder).mask
    assert saved.name == run.mask.name
    if mask == "adaptive":
        table = json.loads((tmp_path / "calibration.json").read_text())["mask"]["simplicity"]
        assert isinstance(saved, AdaptiveClusterMask)
        assert [[moment, list(levels)] for moment, levels in saved.simplicity] == table
    elif mask in ("mix", "progressive target"):
        table = json.loads((tmp_path / "calibration.json").read_text())["mask"]["threshold"]
        assert isinstance(saved, ClusterMask)
        assert isinstance(saved.threshold, tuple)
        assert [list(entry) for entry in saved.threshold] == table
        assert len(table) > 30
    else:
        assert saved == run.mask
