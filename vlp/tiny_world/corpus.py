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
from PIL import Image

from vlp.core.config import StrictConfig, Within
from vlp.shards.storage.whole import writing, writing_folder
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

    def check(self) -> None:
        """Nothing can be missing of what is generated."""

    def write(self, folder: Path) -> None:
        """Make all files of the corpus."""
        write_corpus(self, folder)

    def images(self, folder: Path) -> Path:
        """Folder of the training images, once the corpus is written."""
        return folder / "train"

    def captions(self, folder: Path) -> dict[str, list[str]]:
        """Captions of every training image by its name in `images`, once the corpus is written."""
        lines = (folder / "train" / "captions.jsonl").read_text().splitlines()
        return {row["file"]: row["captions"] for row in map(json.loads, lines)}

    def evaluation_sets(self, folder: Path) -> dict[str, dict[str, Path]]:
        """Sets that models are measured on, by their kind and name, once the corpus is written."""
        return {
            "retrieval": {self.name: folder / "retrieval.parquet"},
            "classification": {self.name: folder / "classification"},
        }

    def identity(self) -> Any:
        """What decides every byte."""
        return self


def write_corpus(config: TinyWorldConfig, folder: Path) -> None:
    """Write train/, retrieval.parquet, classification/ and composition.jsonl into a folder."""
    with writing_folder(folder / "train") as train:
        _write_training(config, train)
    with writing(folder / "retrieval.parquet") as stream:
        pq.write_table(_retrieval(config), stream)
    with writing_folder(folder / "classification") as classification:
        _write_classification(config, classification)
    with writing(folder / "composition.jsonl") as stream:
        stream.write(_json_lines(_composition(config)))


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
        (folder / file).write_bytes(_jpeg(scene, rng, config))
        rows.append({"file": file, "captions": draw_captions(scene, rng, count=config.captions_per_image)})
    (folder / "captions.jsonl").write_bytes(_json_lines(rows))


def _retrieval(config: TinyWorldConfig) -> pa.Table:
    """With where the objects are that captions name, which are all of them."""
    images, captions, objects = [], [], []
    for scene, rng in draw_split(config, "heldout"):
        rendered = render(scene, rng, image_size=config.image_size)
        images.append(_as_jpeg(rendered.picture))
        objects.append(_as_png(rendered.objects))
        captions.append(draw_captions(scene, rng, count=config.captions_per_image))
    texts = pa.array(captions, pa.list_(pa.string()))
    pictures, places = (pa.array(column, pa.binary()) for column in (images, objects))
    return pa.table({"image": pictures, "captions": texts, "objects": places})


def _write_classification(config: TinyWorldConfig, folder: Path) -> None:
    for split, per_class in (("train", config.num_labelled_per_class), ("test", config.num_test_per_class)):
        images, labels = [], []
        for index in range(per_class * len(CLASSES)):
            rng = _generator(config, f"classification/{split}", index)
            label = index % len(CLASSES)
            color, shape = CLASSES[label]
            images.append(_jpeg(draw_single(rng, shape=shape, color=color), rng, config))
            labels.append(label)
        table = pa.table({"image": pa.array(images, pa.binary()), "label": pa.array(labels, pa.int32())})
        pq.write_table(table, folder / f"{split}.parquet")
    classes = [f"{color} {shape}" for color, shape in CLASSES]
    meta = {"name": config.name, "classes": classes, "templates": CLASS_TEMPLATES}
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


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
    return _as_jpeg(render(scene, rng, image_size=config.image_size).picture)


def _as_jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
