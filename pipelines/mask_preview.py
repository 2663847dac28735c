"""Masks on the images of a run: the calibration of their threshold, and a picture of what they hide."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pipelines.checkpoint import build_objective
from pipelines.config_errors import ConfigError
from pipelines.ingest.shard import write_json
from pipelines.journal import Journal
from pipelines.run_config import RunConfig
from vlp.data.loader import load_images
from vlp.data.shards import ShardSet
from vlp.encoders import ImageEncoder
from vlp.encoders.patches import patchify
from vlp.masking import MaskInputs, MaskStrategy, visible_slots
from vlp.masking.calibration import calibrate
from vlp.masking.cluster import ClusterMask
from vlp.masking.strategy import uniform_noise
from vlp.normalization import denormalize
from vlp.pictures.masks import mask_panel
from vlp.seeds import mix_seeds

CALIBRATION_IMAGES = 2048
PREVIEW_IMAGES = 6


def calibrate_mask(config: RunConfig, shards: ShardSet, output: Path, journal: Journal) -> RunConfig:
    """The run with its threshold searched on the training images, once; other masks stay as they are.

    Raises:
        ConfigError: no threshold meets the target on these images.
    """
    mask = config.mask
    if not (isinstance(mask, ClusterMask) and mask.threshold == "auto"):
        return config
    file = output / "calibration.json"
    if not file.is_file():
        print(f"[pretrain {config.name}] calibrating the similarity threshold", flush=True)
        try:
            found = calibrate(mask, _calibration_inputs(config, shards), seed=config.seed)
        except ValueError as error:
            raise ConfigError(f"mask: {error}") from error
        write_json(
            file,
            {
                "threshold": found.mask.threshold,
                "mask_ratio": found.mask_ratio,
                "per_image_quantiles": found.quantiles,
            },
        )
    calibration = json.loads(file.read_text())
    searched = calibration["threshold"]
    threshold = tuple(map(tuple, searched)) if isinstance(searched, list) else searched
    quantiles = {f"p{float(q):.0%}".strip("%"): v for q, v in calibration["per_image_quantiles"].items()}
    journal.metrics(
        {
            "calibration/threshold": threshold[0][1] if isinstance(threshold, tuple) else threshold,
            "calibration/mask_ratio": calibration["mask_ratio"],
        }
        | {f"calibration/mask_ratio_{key}": value for key, value in quantiles.items()}
    )
    return replace(config, mask=replace(mask, threshold=threshold))


def preview_masks(config: RunConfig, shards: ShardSet, masks: Mapping[str, MaskStrategy]) -> Image.Image:
    """What each mask hides on the first images of a data set, after the cut."""
    images = load_images(
        [shards.image_bytes(i) for i in range(min(PREVIEW_IMAGES, len(shards)))],
        image_size=config.image_encoder.image_size,
        normalization=config.data.normalization,
    )
    inputs = _inputs(images, config, _fresh_encoder(config))
    hidden = {name: _hidden(mask, inputs, seed=config.seed) for name, mask in masks.items()}
    scale = max(1, 128 // config.image_encoder.image_size)
    return mask_panel(denormalize(images, config.data.normalization), hidden, image_scale=scale)


def _hidden(mask: MaskStrategy, inputs: MaskInputs, *, seed: int) -> Tensor:
    """(B, N) bool, True where the encoder would not see a patch."""
    generator = torch.Generator().manual_seed(mix_seeds(seed, 0))
    masked = mask(inputs, generator=generator)
    noise = None if mask.is_exact else uniform_noise(inputs, generator)
    keep_indices, is_padding = visible_slots(masked, mask.num_visible(inputs.num_patches), noise)
    is_hidden = torch.zeros_like(keep_indices, dtype=torch.bool) if is_padding is None else is_padding
    return torch.ones_like(masked).scatter(1, keep_indices, is_hidden)


def _calibration_inputs(config: RunConfig, shards: ShardSet, batch_size: int = 128) -> Iterator[MaskInputs]:
    """Images spread evenly over the data set, seen with the weights that training starts from."""
    encoder = _fresh_encoder(config)
    count = min(CALIBRATION_IMAGES, len(shards))
    chosen = [i * len(shards) // count for i in range(count)]
    for start in range(0, count, batch_size):
        images = load_images(
            [shards.image_bytes(i) for i in chosen[start : start + batch_size]],
            image_size=config.image_encoder.image_size,
            normalization=config.data.normalization,
        )
        yield _inputs(images, config, encoder)


def _fresh_encoder(config: RunConfig) -> Callable[[], ImageEncoder]:
    """The image encoder that training starts from, built when it is first asked for."""
    return cache(lambda: build_objective(config, document_frequency=None).image_encoder)


def _inputs(images: Tensor, config: RunConfig, encoder: Callable[[], ImageEncoder]) -> MaskInputs:
    """The views of images; only those that are computed by weights need the encoder."""
    return MaskInputs(
        (len(images), config.image_encoder.num_patches),
        images.device,
        patches=lambda: patchify(images, config.image_encoder.patch_size),
        tokens=lambda: encoder().mask_inputs(images).tokens,
        attention=lambda: encoder().mask_inputs(images).attention,
    )
