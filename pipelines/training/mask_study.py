"""Masks on a user's own images, before anything is trained: sheets, and a page with sliders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from pipelines.config.errors import UserError, blaming
from pipelines.config.machine import MachineConfig
from pipelines.ingest.url_list import IMAGE_SUFFIXES
from pipelines.tracking.held import held
from pipelines.training.init_weights import find_weights
from vlp.core.normalization import normalize
from vlp.data.transforms import center_crop, decode, to_tensor
from vlp.encoders.patches import patchify
from vlp.masking import MaskInputs, MaskStrategy
from vlp.objectives import Objective
from vlp.pictures.mask_grid import END, Look, MaskGrid, look, mask_grid, ready_at
from vlp.pictures.mask_page import MaskRow, mask_page
from vlp.pictures.mask_sheets import Column, cluster_sheet, distance_curves, hidden_sheet
from vlp.run import RunConfig

PAGE, SHEET, CLUSTERS, DISTANCES = "masks.html", "masks.png", "clusters.png", "distances.png"


class Photo(NamedTuple):
    """An image to show masks on."""

    name: str
    picture: Image.Image
    """RGB, of any size."""


def read_photos(places: Sequence[Path], count: int) -> list[Photo]:
    """The first images of files and of folders, with all that is below them.

    Raises:
        UserError: one is missing, or is no image.
    """
    files = [file for place in places for file in _files(place)]
    return [_read(file) for file in files[:count]]


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    found = sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f"{place} has no image: no file in it ends in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found


def _read(file: Path) -> Photo:
    try:
        return Photo(file.name, decode(file.read_bytes()))
    except FileNotFoundError as error:
        raise UserError(f"no such file or folder: {file}") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{file} is not an image that can be read: {error}; leave it out") from error


class Models:
    """Networks that masks look through, each built once for all runs that would start from it."""

    def __init__(self, machine: MachineConfig) -> None:
        self.machine = machine
        self._built: dict[Any, Objective] = {}

    def before_training(self, run: RunConfig) -> Objective:
        """The model of a run before its first step.

        Raises:
            ConfigError: the weights that it is to start from are missing, or those of another model.
        """
        key = (run.image_encoder, run.objective, run.tokenizer, run.init_from, run.seed)
        if key not in self._built:
            with blaming("tokenizer: "):
                tokenizer = run.tokenizer.build()
            self._built[key] = run.build(run.vocabulary(tokenizer)).eval()
            if source := run.init_from:
                source = replace(source, path=held(source.path, self.machine))
                find_weights(source).set_in(self._built[key])
        return self._built[key]


@dataclass(frozen=True)
class Study:
    """A run's mask on the images."""

    run: RunConfig
    photos: tuple[Photo, ...]
    models: Models

    @property
    def mask(self) -> MaskStrategy:
        """As the run has it: a threshold may still have to be searched."""
        return self.run.mask

    @cached_property
    def squares(self) -> torch.Tensor:
        """(B, 3, H, W) uint8, the middle of each image as the network is to take it."""
        size = self.run.image_encoder.image_size
        return torch.stack([to_tensor(center_crop(photo.picture, size)) for photo in self.photos])

    @cached_property
    def inputs(self) -> MaskInputs:
        """What the mask looks at; weights are made only where it looks through them."""
        images = normalize(self.squares, self.run.data.normalization)
        encoder = self.run.image_encoder
        if not self.mask.views:
            return MaskInputs.of(patchify(images, encoder.patch_size))
        offered = self.models.before_training(self.run).mask_inputs(images)
        views = {view: getattr(offered, view) for view in self.mask.views}
        return MaskInputs.of(offered.patches, **views)

    def look(self, progress: float) -> Look:
        """The mask at work as the run has it."""
        moment = min(END, progress) if self.mask.is_changing else 0.0
        mask = ready_at(self.mask, self.inputs, moment)
        return look(mask, self.inputs, progress=moment, seed=self.run.seed)

    @cached_property
    def grid(self) -> MaskGrid:
        """The mask at work at every setting."""
        return mask_grid(
            self.mask, self.inputs, patch_size=self.run.image_encoder.patch_size, seed=self.run.seed
        )

    @property
    def remark(self) -> str:
        """Where the weights come from, if the mask looks through any; and where its threshold does."""
        parts = []
        if self.mask.views:
            source = self.run.init_from
            parts.append(
                f"weights of {source.path}" if source else f"untrained weights, seed {self.run.seed}"
            )
        if not self.mask.is_calibrated:
            parts.append("calibrated on these images")
        return "; ".join(parts)


def study_masks(
    runs: Sequence[RunConfig],
    photos: Sequence[Photo],
    output: Path,
    *,
    machine: MachineConfig,
    progress: float,
) -> Iterator[str]:
    """Write the sheets, the curve and the page into a folder; gives lines that say what was found.

    Args:
        progress: share of the training at which masks that change with it are drawn, in [0, 1].
    """
    models = Models(machine)
    studies = [Study(run, tuple(photos), models) for run in runs]
    columns = []
    for study in studies:
        with blaming(f"{study.run.name}: "):
            columns.append(Column(study.run.name, study.squares / 255, study.look(progress)))
    output.mkdir(parents=True, exist_ok=True)
    yield f"{'mask':24} {'hidden':>7} {'least':>7} {'most':>7}  AvgDist"
    for study, column in zip(studies, columns, strict=True):
        yield _line(study, progress, column.look)
    hidden_sheet(columns).save(output / SHEET)
    if (clusters := cluster_sheet(columns)) is not None:
        clusters.save(output / CLUSTERS)
    distance_curves([(study.run.name, study.grid) for study in studies], progress=progress).save(
        output / DISTANCES
    )
    (output / PAGE).write_text(_page(studies, progress), encoding="utf-8")
    yield f"pictures: {output / SHEET}" + (f", {output / CLUSTERS}" if clusters else "")
    yield f"curve: {output / DISTANCES}"
    yield f"page: {output / PAGE} ({(output / PAGE).stat().st_size / 1e6:.1f} MB)"


def _line(study: Study, progress: float, found: Look) -> str:
    ratios = found.hidden.float().mean(dim=1)
    distance = study.grid.distances[study.grid.at(progress)[0]]
    shares = " ".join(f"{share.item():7.1%}" for share in (ratios.mean(), ratios.min(), ratios.max()))
    return f"{study.run.name:24} {shares}  {distance:.1f} px"


def _page(studies: Sequence[Study], progress: float) -> str:
    largest = max(studies, key=lambda study: study.run.image_encoder.image_size)
    pictures = [Image.fromarray(square.permute(1, 2, 0).numpy()) for square in largest.squares]
    rows = [
        MaskRow(
            study.run.name,
            study.mask.formula,
            study.remark,
            isqrt(study.run.image_encoder.num_patches),
            study.grid,
        )
        for study in studies
    ]
    names = [photo.name for photo in largest.photos]
    return mask_page(rows, list(zip(names, pictures, strict=True)), progress=progress)
