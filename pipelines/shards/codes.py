"""The images of shards to the codes of SimMIM's class targets: a palette of colours, or visual words."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Generator, Tensor

from pipelines.config.errors import ConfigError, blaming
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from vlp.core.config import AtLeast, StrictConfig
from vlp.core.normalization import normalize
from vlp.core.registry import ByName
from vlp.data.loader import middle_squares
from vlp.shards.manifest import Manifest
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.address import AnyFolder
from vlp.shards.storage.whole import writing
from vlp.targets.classes import CODED_TARGETS, CodedTargetConfig
from vlp.targets.codes import fit_codes, nearest_codes
from vlp.targets.color_clusters import ColorClusterTargetConfig

BATCH_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class FitCodesConfig(StrictConfig):
    """Whose images the codes are fitted to, and what for."""

    shards: AnyFolder
    """Folder that `vlp download` made, or its address in an object store."""
    plugins: tuple[str, ...] = ()
    """Modules of one's own, whose targets are choices, too."""
    target: Annotated[CodedTargetConfig, ByName(CODED_TARGETS, default="color_clusters")] = (
        ColorClusterTargetConfig()
    )
    """As `objective.target` of the run: `name` and `num_codes`, and `resolution` of visual words."""
    image_size: Annotated[int, AtLeast(1)] = 224
    """As `image_encoder.image_size` of the run."""
    num_images: Annotated[int, AtLeast(1)] = 2048
    """Images that are looked at, spread evenly over the shards."""
    vectors_per_image: Annotated[int, AtLeast(1)] = 128
    """Places of each image that are looked at, a random choice."""
    seed: int = 0
    """Of the places that are looked at, and of the first codes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target.side(self.image_size)


@dataclass(frozen=True, kw_only=True)
class CodesManifest(Manifest):
    """What is known of codes that were fitted."""

    mean_squared_distance: float
    """Of the vectors that were looked at to their nearest codes."""
    num_vectors: int


def fit(config: FitCodesConfig, output: Path, *, machine: MachineConfig, journal: Journal) -> CodesManifest:
    """Write the codes to an .npy file; returns a manifest.

    Raises:
        ConfigError: the folder holds no shards, or the images too few different places.
    """
    with blaming("shards: "):
        shards = ShardSet(config.shards)
    generator = Generator().manual_seed(config.seed)
    vectors = torch.cat(list(_vectors(config, shards, generator)))
    print(f"[fit-codes] {config.target.num_codes:,} codes to {len(vectors):,} vectors", flush=True)
    try:
        codes = fit_codes(vectors, config.target.num_codes, generator=generator)
    except ValueError as error:
        raise ConfigError(f"num_images: {error}; raise it, or lower target.num_codes") from error
    output.parent.mkdir(parents=True, exist_ok=True)
    with writing(output) as stream:
        np.save(stream, codes.numpy())
    source = str(config.shards.absolute())
    journal.dataset(
        name=config.shards.name,
        digest=shards.digest,
        source=source,
        context="codes",
        profile={"num_samples": len(shards)},
    )
    nearest = codes[nearest_codes(vectors[None], codes)[0]]
    error = (vectors - nearest).square().sum(dim=1).mean().item()
    journal.metrics({"codes/mean_squared_distance": error})
    journal.artifact(output, folder="codes")
    digest = fingerprint(codes.tolist())
    return CodesManifest(digest=digest, mean_squared_distance=error, num_vectors=len(vectors))


def _vectors(config: FitCodesConfig, shards: ShardSet, generator: Generator) -> Iterator[Tensor]:
    """The vectors of random places of some images: (images x places, P) at a time."""
    count = min(config.num_images, len(shards))
    chosen = [i * len(shards) // count for i in range(count)]
    for start in range(0, count, BATCH_SIZE):
        squares = middle_squares(shards, chosen[start : start + BATCH_SIZE], image_size=config.image_size)
        for vectors in config.target.vectors(normalize(squares, config.target.normalization)):
            yield vectors[torch.randperm(len(vectors), generator=generator)[: config.vectors_per_image]]
