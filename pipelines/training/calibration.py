"""The threshold of a cluster mask: searched on training images before the training, and again within it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.config.errors import ConfigError
from pipelines.tracking.journal import Journal
from pipelines.training.init_weights import fresh_objective
from vlp.core.distributed import is_main, world_size
from vlp.core.normalization import normalize
from vlp.data.loader import middle_squares
from vlp.masking import MaskInputs, MaskStrategy
from vlp.masking.calibration import Calibration, calibrate, recalibrate
from vlp.masking.cluster import ClusterMask
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.local import LocalFolder

NUM_IMAGES = 2048
BATCH_SIZE = 128


class CalibrationImages:
    """Images spread evenly over a data set, decoded once."""

    def __init__(self, config: RunConfig, shards: ShardSet) -> None:
        self.config, self.shards = config, shards

    def inputs(self, look: Callable[[Tensor], MaskInputs], device: torch.device) -> Iterator[MaskInputs]:
        """What masks see of them, batch by batch."""
        for pixels in self._pixels.split(BATCH_SIZE):
            yield look(normalize(pixels.to(device), self.config.data.normalization))

    @cached_property
    def _pixels(self) -> Tensor:
        """(2048, 3, H, W) uint8, or as many images as there are and can be read."""
        count = min(NUM_IMAGES, len(self.shards))
        chosen = [i * len(self.shards) // count for i in range(count)]
        return middle_squares(self.shards, chosen, image_size=self.config.image_encoder.image_size)


def calibrate_mask(config: RunConfig, shards: ShardSet, output: Path, journal: Journal) -> RunConfig:
    """The run with its threshold searched with the weights that training starts from, once; other masks
    stay as they are.

    Raises:
        ConfigError: no threshold meets the target on these images.
    """
    mask = config.mask
    if not (isinstance(mask, ClusterMask) and mask.threshold == "auto"):
        return config
    file = output / "calibration.json"
    if not file.is_file():
        print(f"[pretrain {config.name}] calibrating the similarity threshold", flush=True)
        look = fresh_objective(config).mask_inputs
        images = CalibrationImages(config, shards).inputs(look, torch.device("cpu"))
        try:
            found = calibrate(mask, images, seed=config.seed)
        except ValueError as error:
            raise ConfigError(f"mask: {error}") from error
        LocalFolder(file.parent).write_json(
            file.name, {"threshold": found.mask.threshold, "metrics": calibration_metrics(found)}
        )
    calibration = json.loads(file.read_text())
    searched = calibration["threshold"]
    threshold = tuple(map(tuple, searched)) if isinstance(searched, list) else searched
    journal.metrics(calibration["metrics"], step=0)
    return replace(config, mask=replace(mask, threshold=threshold))


def calibration_metrics(found: Calibration) -> dict[str, float]:
    """What a calibration is logged as: its threshold, and what that hides over all and per image."""
    return {
        "calibration/threshold": found.threshold,
        "calibration/mask_ratio": found.mask_ratio,
    } | {f"calibration/mask_ratio_p{round(100 * level)}": x for level, x in found.quantiles.items()}


def recalibration_steps(mask: MaskStrategy, steps: int) -> tuple[int, ...]:
    """Before which of so many steps the threshold is searched again: none unless embeddings decide a searched
    one."""
    if not (isinstance(mask, ClusterMask) and mask.threshold == "auto" and mask.feature != "rgb"):
        return ()
    return tuple(sorted({steps * i // mask.recalibrations for i in range(1, mask.recalibrations)}))


class Recalibration:
    """Searches the threshold again as the embeddings move; what it finds is a function of the weights."""

    def __init__(self, config: RunConfig, shards: ShardSet, steps: tuple[int, ...]) -> None:
        self.config, self.steps = config, steps
        self.images = CalibrationImages(config, shards)

    def search(
        self, objective: Objective, mask: ClusterMask, step: int
    ) -> tuple[ClusterMask, dict[str, float]]:
        """The mask from this step on, and what to log. A collective: rank 0 searches for all workers."""
        found: list[object] = [self._search(objective, mask, step) if is_main() else None]
        if world_size() > 1:
            dist.broadcast_object_list(found, device=next(objective.parameters()).device)
        assert isinstance(found[0], Calibration)
        return found[0].mask, calibration_metrics(found[0])

    def _search(self, objective: Objective, mask: ClusterMask, step: int) -> Calibration:
        total = self.config.num_masked_steps
        until = next((later for later in self.steps if later > step), total)
        device = next(objective.parameters()).device
        return recalibrate(
            mask,
            self.images.inputs(objective.mask_inputs, device),
            progress=step / total,
            until=until / total,
            seed=self.config.seed,
        )
