"""The tiny world as files: a training set and three evaluation sets, the same bytes from the same seed."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vlp.core.config import StrictConfig, Within
from vlp.tiny_world.captions import CLASS_TEMPLATES, describe, draw_captions
from vlp.tiny_world.render import render
from vlp.tiny_world.scene import CLASSES, Scene, alterations, draw_scene, draw_single


@dataclass(frozen=True, kw_only=True)
class TinyWorldConfig(StrictConfig):
    """How much of the tiny world is made; a larger set begins with the images of a smaller one."""

    name: Literal["tiny_world"] = "tiny_world"
    """Which corpus it is."""
    seed: int = 0
    """Of all scenes and captions."""
    num_train: Annotated[int, Within(1, 1_000_000)] = 2000
    """Training scenes."""
    num_heldout: Annotated[int, Within(1, 20_000)] = 200
    """Scenes for retrieval and composition; none of them is a training scene."""
    num_labelled_per_class: Annotated[int, Within(1, 100_000)] = 20
    """Labelled training images for each of the ten classes."""
    num_test_per_class: Annotated[int, Within(1, 100_000)] = 10
    """Labelled test images for each of the ten classes."""
    image_size: Annotated[int, Within(32, 512)] = 64
    """Pixels a side."""
    captions_per_image: Annotated[int, Within(1, 16)] = 4
    """Texts that describe each scene."""


def write_corpus(config: TinyWorldConfig, folder: Path) -> None:
    """Write train/, retrieval.parquet, classification/ and composition.jsonl into a folder."""
    _write_training(config, folder / "train")
    _write_retrieval(config, folder / "retrieval.parquet")
    _write_classification(config, folder / "classification")
    _write_jsonl(folder / "composition.jsonl", _composition(config))


def draw_split(config: TinyWorldConfig, split: Literal["train", "heldout"]) -> Iterator[tuple[Scene, Random]]:
    """Scenes of a split, each with the generator that draws its picture and captions.

    Held-out contents are distinct and never trained on; training contents may repeat in other pictures.
    """
    seen: set[str] = set()
    for index in range(config.num_train if split == "train" else config.num_heldout):
        rng = _generator(config, split, index)
        scene = draw_scene(rng)
        while scene.is_held_out != (split == "heldout") or scene.content in seen:
            scene = draw_scene(rng)
        if split == "heldout":
            seen.add(scene.content)
        yield scene, rng


def _write_training(config: TinyWorldConfig, folder: Path) -> None:
    rows = []
    for index, (scene, rng) in enumerate(draw_split(config, "train")):
        file = f"{index:06d}.jpg"
        _write(folder / file, _jpeg(scene, rng, config))
        rows.append({"file": file, "captions": draw_captions(scene, rng, count=config.captions_per_image)})
    _write_jsonl(folder / "captions.jsonl", rows)


def _write_retrieval(config: TinyWorldConfig, path: Path) -> None:
    images, captions = [], []
    for scene, rng in draw_split(config, "heldout"):
        images.append(_jpeg(scene, rng, config))
        captions.append(draw_captions(scene, rng, count=config.captions_per_image))
    columns = {"image": pa.array(images, pa.binary()), "captions": pa.array(captions, pa.list_(pa.string()))}
    _write_parquet(path, columns)


def _write_classification(config: TinyWorldConfig, folder: Path) -> None:
    for split, per_class in (("train", config.num_labelled_per_class), ("test", config.num_test_per_class)):
        images, labels = [], []
        for index in range(per_class * len(CLASSES)):
            rng = _generator(config, f"classification/{split}", index)
            label = index % len(CLASSES)
            color, shape = CLASSES[label]
            images.append(_jpeg(draw_single(rng, shape=shape, color=color), rng, config))
            labels.append(label)
        columns = {"image": pa.array(images, pa.binary()), "label": pa.array(labels, pa.int32())}
        _write_parquet(folder / f"{split}.parquet", columns)
    classes = [f"{color} {shape}" for color, shape in CLASSES]
    meta = {"name": config.name, "classes": classes, "templates": CLASS_TEMPLATES}
    _write(folder / "meta.json", (json.dumps(meta, indent=2) + "\n").encode())


def _composition(config: TinyWorldConfig) -> Iterator[dict[str, Any]]:
    for index, (scene, _) in enumerate(draw_split(config, "heldout")):
        rng = _generator(config, "composition", index)
        for kind, altered in alterations(scene, rng).items():
            wording = rng.getrandbits(64)
            caption, negative = describe(scene, Random(wording)), describe(altered, Random(wording))
            yield {"image": index, "caption": caption, "negative": negative, "kind": kind}


def _generator(config: TinyWorldConfig, split: str, index: int) -> Random:
    return Random(f"{config.seed}/{split}/{index}")


def _jpeg(scene: Scene, rng: Random, config: TinyWorldConfig) -> bytes:
    buffer = io.BytesIO()
    render(scene, rng, image_size=config.image_size).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _write_parquet(path: Path, columns: dict[str, pa.Array]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    _write(path, buffer.getvalue())


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    partial.write_bytes(content)
    partial.replace(path)
