"""Masks that are calibrated on training images: before the training, and again within it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.checkpoints.checkpoint import read_run
from pipelines.config.errors import blaming
from pipelines.config.settings import Layers, build, to_dict
from pipelines.tracking.journal import Journal
from pipelines.training.claim import claimed
from pipelines.training.resolved import ResolvedRun
from vlp.core.distributed import is_main, world_size
from vlp.core.normalization import normalize
from vlp.core.registry import ByName
from vlp.data.loader import TrainingPairs, training_views
from vlp.masking import STRATEGIES, Calibration, MaskInputs, MaskStrategy
from vlp.masking.strategy import mean_visible
from vlp.objectives import Objective
from vlp.run import RunConfig, slots_per_image
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.local import LocalFolder

NUM_IMAGES = 2048
BATCH_SIZE = 128


class CalibrationImages:
    """Images spread evenly over a data set, decoded and augmented once."""

    def __init__(self, config: RunConfig, shards: ShardSet) -> None:
        self.config, self.shards = config, shards

    def inputs(self, look: Callable[[Tensor], MaskInputs], device: torch.device) -> Iterator[MaskInputs]:
        """What masks see of them, batch by batch."""
        for pixels in self._pixels.split(BATCH_SIZE):
            yield look(normalize(pixels.to(device), self.config.data.normalization))

    @cached_property
    def _pixels(self) -> Tensor:
        """(2048, 3, H, W) uint8, or as many images as there are and can be read."""
        config, count = self.config, min(NUM_IMAGES, len(self.shards))
        chosen = [i * len(self.shards) // count for i in range(count)]
        size = config.image_encoder.image_size
        return training_views(
            TrainingPairs(self.shards, config.data, image_size=size, seed=config.seed), chosen
        )


def calibrated(run: ResolvedRun, output: Path, journal: Journal) -> ResolvedRun:
    """The run with its mask calibrated once, with the weights that training starts from.

    Raises:
        ConfigError: what the mask is asked for cannot be met on these images.
    """
    config = run.config
    if config.mask.is_calibrated:
        return run
    file = output / "calibration.json"
    if not file.is_file():
        print(f"[{run.label}] calibrating the mask", flush=True)
        images = CalibrationImages(config, run.shards)
        inputs = images.inputs(run.objective.mask_inputs, torch.device("cpu"))
        with blaming("mask: "):
            found = config.mask.calibrated(inputs, seed=config.seed)
        content = {"mask": to_dict(found.mask), "metrics": found.metrics}
        LocalFolder(file.parent).write_json(file.name, content)
    content = json.loads(file.read_text())
    journal.params({f"calibration.{key}": value for key, value in content["metrics"].items()})
    schema: Any = Annotated[MaskStrategy, ByName(STRATEGIES)]
    mask = build(schema, Layers().add(content["mask"], str(file)))
    return run.with_config(replace(config, mask=mask))


def with_mask_of_start(run: ResolvedRun) -> ResolvedRun:
    """The run with the mask as last calibrated in the one that it begins from, where that has the same."""
    if run.start is None or claimed(run.start.parent.parent)["mask"] != run.settings["mask"]:
        return run
    return run.with_config(replace(run.config, mask=read_run(run.start).mask))


def at_known_share(run: ResolvedRun, newest: Path | None) -> ResolvedRun:
    """The run with a number of steps that is known, where it is paid in visible tokens.

    What the mask shows is measured once: a run that goes on has it from its checkpoint.

    Args:
        newest: the checkpoint that the run goes on from; None where it starts.

    Raises:
        ConfigError: the length does not pay for one step.
    """
    config = run.config
    if not config.needs_visible_patches:
        return run
    if newest is not None:
        return run.with_config(replace(config, training=read_run(newest).training))
    look = run.objective.mask_inputs
    inputs = CalibrationImages(config, run.shards).inputs(look, torch.device("cpu"))
    seen = round(mean_visible(config.mask, inputs, seed=config.seed), 2)
    length = replace(config.training.length, visible_patches=seen)
    config = replace(config, training=replace(config.training, length=length))
    with blaming():
        config.check_length()
    print(
        f"[{run.label}] the mask shows {seen:g} patches of an image in the mean, in {slots_per_image(config)}"
        f" slots: training.length.visible_tokens {length.amount:g} pays for "
        f"{config.num_masked_steps:,} steps",
        flush=True,
    )
    return run.with_config(config)


class Recalibration:
    """Calibrates the mask again as the embeddings move; what it finds is a function of the weights."""

    def __init__(self, config: RunConfig, shards: ShardSet, steps: tuple[int, ...]) -> None:
        self.config, self.steps = config, steps
        self.images = CalibrationImages(config, shards)

    def search(
        self, objective: Objective, mask: MaskStrategy, step: int
    ) -> tuple[MaskStrategy, dict[str, float]]:
        """The mask from this step on, and what to log. A collective: rank 0 searches for all workers."""
        found: list[Any] = [self._search(objective, mask, step) if is_main() else None]
        if world_size() > 1:
            dist.broadcast_object_list(found, device=next(objective.parameters()).device)
        return found[0].mask, _named(found[0].metrics)

    def _search(self, objective: Objective, mask: MaskStrategy, step: int) -> Calibration:
        total = self.config.num_masked_steps
        until = next((later for later in self.steps if later > step), total)
        device = next(objective.parameters()).device
        return mask.recalibrated(
            self.images.inputs(objective.mask_inputs, device),
            progress=step / total,
            until=until / total,
            seed=self.config.seed,
        )


def _named(metrics: dict[str, float]) -> dict[str, float]:
    return {f"view/calibration/{key}": value for key, value in metrics.items()}
