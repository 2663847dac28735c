"""How well a model finds that images and captions fit, and DataComp's basic filters (arXiv:2304.14108), as a
selection: columns of which conditions choose.

Of several captions of an image a column has the least, so that a condition on the least of it holds for each.
English, which DataComp's filter asks for too, is not told: see the manual.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model, read_run
from pipelines.checkpoints.mirror import ensure_here
from pipelines.compute.cluster import connect
from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.curation.making import Making, open_source
from pipelines.evaluation.embed import feature_folder, make_embedder, open_store
from pipelines.tracking.journal import Journal
from vlp.core.config import StrictConfig
from vlp.core.markdown import markdown_table
from vlp.core.normalization import normalize
from vlp.data.transforms import center_crop, decode, to_tensor
from vlp.metrics.outcomes import NoOutcomesError
from vlp.shards.index_schema import pc
from vlp.shards.outcome import SUCCESS
from vlp.shards.selection import SelectionManifest, write_columns
from vlp.shards.storage.address import AnyFolder
from vlp.shards.storage.folder import Folder, LocalFile

INDEX_COLUMNS = [
    *("key", "status", "captions", "original_width", "original_height", "image_offset", "image_size")
]
COLUMNS = {
    "similarity": pa.float32(),
    "words": pa.int32(),
    "characters": pa.int32(),
    "shorter_side": pa.int32(),
    "aspect": pa.float32(),
}
"""What a selection has of every sample, and nothing of other rows: the least cosine similarity, words and
characters of its captions; the original's shorter side in pixels, and longer side / shorter side."""
BASIC = {"words": (">=", 2), "characters": (">=", 6), "shorter_side": (">=", 200), "aspect": ("<=", 3)}
"""DataComp's basic filter."""
TOP = (0.1, 0.2, 0.3, 0.5, 0.75)
BATCH_SIZE, DECODERS = 128, 4
BINS = 2000
"""Of the similarities in [-1, 1]: thresholds have three digits."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(StrictConfig):
    """What is scored by which model."""

    shards: AnyFolder
    """Folder of shards, or its address in an object store."""
    checkpoint: Path
    """As `checkpoint` of `vlp evaluate`."""


def check_scorer(checkpoint: Path) -> Path:
    """The checkpoint of a folder, whose model compares captions with images.

    Raises:
        ConfigError, UserError: there is none, or its model does not.
    """
    found = find_checkpoint(checkpoint)
    objective = read_run(found).objective
    if not objective.encodes_text:
        raise UserError(
            f"checkpoint: {found} was trained by objective {objective.name}, which compares no captions with "
            "images; choose one of another, such as contrastive"
        )
    return found


def score(
    config: ScoreConfig, output: Folder, *, machine: MachineConfig, journal: Journal
) -> SelectionManifest:
    """Write the selection, whose columns are `COLUMNS`; returns its manifest."""
    checkpoint, shards = check_scorer(config.checkpoint).absolute(), open_source(config.shards)
    made = fingerprint("score", open_store(checkpoint, feature_folder(machine)).model)
    making = Making("score", config.shards, shards, made, output, machine, journal)
    if machine.use_gpu:
        connect(machine, min_cpus=1, min_gpus=1)
    making.fill(ScoreShard, (checkpoint, machine.absolute()), num_gpus=int(machine.use_gpu))
    making.bring(making.files)
    seen = Seen()
    for file in making.files:
        seen.add(making.place.table(file))
    columns = {name: str(kind) for name, kind in COLUMNS.items()}
    return making.finish(seen.table(), {}, columns=columns, counts=seen.counts())


class ScoreShard:
    """A worker: the model of a checkpoint, which scores a shard at a time."""

    def __init__(self, shards: Folder, place: Folder, checkpoint: Path, machine: MachineConfig) -> None:
        self.shards, self.place, self.checkpoint = shards, place, checkpoint
        ensure_here(checkpoint, machine)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = make_embedder(*load_model(checkpoint, device))
        self.model.objective.eval()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write `row["file"]` of the shard of `row["name"]`; the row, with why the model is refused."""
        index = self.shards.table(f"{row['name']}.parquet", INDEX_COLUMNS)
        rows = index.to_pylist()
        places = [i for i, one in enumerate(rows) if one["status"] == SUCCESS and one["captions"]]
        samples = [rows[i] for i in places]
        try:
            with self.shards.fetched(f"{row['name']}.tar") as tar:
                similarities = list(self._similarities(tar, samples))
        except NoOutcomesError as error:
            return {**row, "refused": f"checkpoint: {self.checkpoint} scores nothing: {error}"}
        scored = [
            {"similarity": similarity, **basics(one)}
            for similarity, one in zip(similarities, samples, strict=True)
        ]
        found = dict(zip(places, scored, strict=True))
        columns = {
            name: pa.array([found.get(i, {}).get(name) for i in range(len(rows))], kind)
            for name, kind in COLUMNS.items()
        }
        write_columns(self.place, row["file"], index["key"], columns)
        return row

    def _similarities(self, tar: LocalFile, samples: Sequence[dict[str, Any]]) -> Iterator[float | None]:
        """The least of each sample's captions; None where the image cannot be read."""
        with ThreadPool(DECODERS) as pool:
            for start in range(0, len(samples), BATCH_SIZE):
                batch = samples[start : start + BATCH_SIZE]
                encoded = [_read(tar, one) for one in batch]
                images = pool.map(self._square, encoded)
                readable = [i for i, image in enumerate(images) if image is not None]
                found = iter(self._compare(images, batch, readable))
                yield from (None if image is None else next(found) for image in images)

    def _compare(
        self, images: Sequence[Tensor | None], samples: Sequence[dict[str, Any]], readable: Sequence[int]
    ) -> list[float]:
        squares = [image for image in images if image is not None]
        if not squares:
            return []
        pixels = normalize(torch.stack(squares), self.model.normalization)
        captions = [samples[i]["captions"] for i in readable]
        return [float(each.min()) for each in self.model.similarities(pixels, captions)]

    def _square(self, encoded: bytes) -> Tensor | None:
        try:
            return to_tensor(center_crop(decode(encoded), self.model.image_size))
        except (ValueError, OSError):
            return None


def _read(tar: LocalFile, sample: dict[str, Any]) -> bytes:
    tar.seek(sample["image_offset"])
    return tar.read(sample["image_size"])


def basics(sample: dict[str, Any]) -> dict[str, float | None]:
    """What DataComp's basic filter reads of a sample: its captions, and the size of the original image."""
    shorter, longer = sorted((sample["original_width"], sample["original_height"]))
    return {
        "words": min(len(text.split()) for text in sample["captions"]),
        "characters": min(map(len, sample["captions"])),
        "shorter_side": shorter,
        "aspect": longer / shorter if shorter else None,
    }


class Seen:
    """What the columns of all shards hold, added up one after another."""

    def __init__(self) -> None:
        self.similarities = np.zeros(BINS, dtype=np.int64)
        self.total = 0.0
        self.num_samples = self.num_unreadable = 0
        self.passed = dict.fromkeys([*BASIC, "all"], 0)

    def add(self, columns: pa.Table) -> None:
        """Count one shard."""
        samples = columns.filter(pc.is_valid(columns["words"]))
        similarities = samples["similarity"].drop_null().to_numpy().astype(np.float64)
        self.num_samples += len(samples)
        self.num_unreadable += len(samples) - len(similarities)
        self.total += float(similarities.sum())
        self.similarities += np.histogram(similarities.clip(-1, 1), BINS, (-1, 1))[0]
        passing = np.ones(len(samples), dtype=bool)
        for name, (sign, bound) in BASIC.items():
            values = samples[name].to_numpy().astype(np.float64)  # NaN, which is none, passes nothing
            passes = values >= bound if sign == ">=" else values <= bound
            self.passed[name] += int(passes.sum())
            passing &= passes
        self.passed["all"] += int(passing.sum())

    def threshold(self, share: float) -> tuple[float, int]:
        """The least similarity, of three digits, of at most that share of samples; and how many have it."""
        above = self.similarities[::-1].cumsum()
        bins = int(np.searchsorted(above, share * self.similarities.sum(), side="right"))
        return 1 - 2 * bins / BINS, int(above[bins - 1]) if bins else 0

    def counts(self) -> dict[str, float]:
        """What is recorded."""
        scored = int(self.similarities.sum())
        return {
            "samples": self.num_samples,
            "unreadable": self.num_unreadable,
            "mean_similarity": self.total / max(1, scored),
            "basic_share": self.passed["all"] / max(1, self.num_samples),
        }

    def table(self) -> str:
        """Which conditions take how many samples, as Markdown."""
        rows = [(f"`similarity>={least:.3f}`", count) for least, count in map(self.threshold, TOP)]
        basic = {name: f"`{name}{sign}{bound}`" for name, (sign, bound) in BASIC.items()}
        rows += [(condition, self.passed[name]) for name, condition in basic.items()]
        rows.append(("the last four, DataComp's basic filter but for English", self.passed["all"]))
        lines = [[name, f"{count:,}", f"{count / max(1, self.num_samples):.1%}"] for name, count in rows]
        return markdown_table(["where", "images", "share"], lines)
