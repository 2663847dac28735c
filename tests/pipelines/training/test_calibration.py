"""A mask is calibrated on what training will show it."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.calibration import CalibrationImages, calibrated
from pipelines.training.resolved import resolve
from vlp.core.normalization import normalize
from vlp.data.loader import TrainingPairs, middle_squares, open_shards
from vlp.data.order import Draw
from vlp.masking.strategy import MaskInputs, mean_visible
from vlp.run import RunConfig

SMALL_CROPS = {"data": {"crop_scale": [0.1, 0.2]}}
CPU = torch.device("cpu")


def test_the_images_are_those_of_the_crops_that_training_draws(
    tiny_run: Callable[..., RunConfig], shards: Path
) -> None:
    run, shown = tiny_run(**SMALL_CROPS), []

    def look(images: Tensor) -> MaskInputs:
        shown.append(images)
        return MaskInputs.of(images.flatten(2))

    assert list(CalibrationImages(run, open_shards(run.data, captioned=True)).inputs(look, CPU))
    pairs = TrainingPairs(open_shards(run.data, captioned=True), run.data, image_size=32, seed=run.seed)
    expected = normalize(torch.stack([pairs.view(Draw(i, 0)) for i in range(24)]), "clip")
    assert torch.equal(torch.cat(shown), expected)


def test_the_share_that_was_asked_for_is_hidden_of_crops(
    tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    mask = {"name": "cluster", "target_mask_ratio": 0.5, "min_mask_ratio": 0.0, "anchor_ratio": 0.1}
    config = tiny_run(**SMALL_CROPS, mask=mask)
    journal = Journal(tmp_path / "journal")
    journal.begin(name=config.name, tags={})
    run = calibrated(resolve(config, MachineConfig(num_workers=0)), tmp_path, journal)

    def hidden(pixels: Tensor) -> float:
        inputs = [run.objective.mask_inputs(normalize(pixels, "clip"))]
        return 1 - mean_visible(run.config.mask, inputs, seed=1) / 16

    pairs = TrainingPairs(run.shards, config.data, image_size=32, seed=1)
    crops = torch.stack([pairs.view(Draw(i, epoch)) for i in range(24) for epoch in range(8)])
    assert abs(hidden(crops) - 0.5) < 0.05
    assert abs(hidden(middle_squares(run.shards, range(24), image_size=32)) - 0.5) > 0.1
