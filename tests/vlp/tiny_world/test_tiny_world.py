"""The tiny world is the same from the same seed, and its captions are true of its pixels."""

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlp.tiny_world import TinyWorldConfig, write_corpus
from vlp.tiny_world.captions import COUNTS, describe
from vlp.tiny_world.corpus import draw_split
from vlp.tiny_world.render import render
from vlp.tiny_world.scene import COLORS, alterations

SMALL = TinyWorldConfig(num_train=40, num_heldout=30, num_labelled_per_class=10, num_test_per_class=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny_world")
    write_corpus(SMALL, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(corpus: Path, tmp_path: Path) -> None:
    write_corpus(SMALL, tmp_path / "again")
    assert files(tmp_path / "again") == files(corpus)
    write_corpus(replace(SMALL, seed=1), tmp_path / "other")
    other = files(tmp_path / "other")
    assert all(other[name] != content for name, content in files(corpus).items() if "meta" not in name)


def test_a_larger_corpus_begins_with_the_smaller_one(corpus: Path, tmp_path: Path) -> None:
    write_corpus(replace(SMALL, num_train=50, num_heldout=35), tmp_path)
    whole, part = files(tmp_path), files(corpus)
    for name, content in part.items():
        if not name.startswith("retrieval"):
            assert whole[name].startswith(content)
    retrieval = pq.read_table(tmp_path / "retrieval.parquet")
    assert retrieval.slice(0, 30).equals(pq.read_table(corpus / "retrieval.parquet"))


def test_held_out_scenes_are_distinct_and_never_trained_on() -> None:
    config = TinyWorldConfig(num_train=3000, num_heldout=500)
    trained = {scene.content for scene, _ in draw_split(config, "train")}
    held_out = [scene.content for scene, _ in draw_split(config, "heldout")]
    assert len(set(held_out)) == len(held_out) == 500
    assert trained.isdisjoint(held_out)


def test_captions_of_an_image_differ(corpus: Path) -> None:
    rows = lines(corpus / "train" / "captions.jsonl")
    assert [row["file"] for row in rows] == [f"{index:06d}.jpg" for index in range(40)]
    assert all(len(set(row["captions"])) == 4 for row in rows)
    assert len({caption for row in rows for caption in row["captions"]}) > 0.9 * 160


def masks_of_colors(image: Image.Image) -> dict[str, np.ndarray]:
    """(H, W) bool per color: the pixels near it."""
    pixels = np.asarray(image.convert("RGB")).astype(float)
    return {color: np.linalg.norm(pixels - rgb, axis=-1) < 45 for color, rgb in COLORS.items()}


def colors_in(caption: str) -> list[str]:
    return re.findall(rf"\b({'|'.join(COLORS)})\b", caption)


def centre(mask: np.ndarray) -> np.ndarray:
    """Mean x and y of a mask's pixels."""
    return np.argwhere(mask).mean(axis=0)[::-1]


def relation_in(caption: str) -> tuple[str, str, int] | None:
    """Colors of the lesser and the greater along an axis, and the axis, read from the words alone."""
    colors = colors_in(caption)
    for words, axis, is_reversed in (
        (r"(?<!the )left of|to the left of", 0, False),
        (r"right of", 0, True),
        (r" (above|over) (an?|two|three) ", 1, False),
        (r" (below|under) (an?|two|three) ", 1, True),
    ):
        if len(colors) == 2 and re.search(words, caption):
            lesser, greater = reversed(colors) if is_reversed else colors
            return lesser, greater, axis
    return None


def test_colors_and_relations_in_captions_are_those_of_the_pixels(corpus: Path) -> None:
    num_relations = 0
    for row in pq.read_table(corpus / "retrieval.parquet").to_pylist():
        masks = masks_of_colors(Image.open(io.BytesIO(row["image"])))
        for caption in row["captions"]:
            assert all(masks[color].sum() >= 15 for color in colors_in(caption)), caption
            if relation := relation_in(caption):
                lesser, greater, axis = relation
                assert centre(masks[lesser])[axis] + 8 < centre(masks[greater])[axis], caption
                num_relations += 1
    assert num_relations > 10


def count_blobs(mask: np.ndarray) -> int:
    """Connected regions of at least eight pixels, by flood filling."""
    remaining, sizes = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while remaining:
        frontier, size = [remaining.pop()], 0
        while frontier:
            y, x = frontier.pop()
            size += 1
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & remaining
            remaining -= near
            frontier.extend(near)
        sizes.append(size)
    return sum(size >= 8 for size in sizes)


def test_as_many_objects_are_drawn_as_captions_count() -> None:
    words = {1: "an?", **COUNTS}
    num_groups = 0
    for scene, rng in draw_split(replace(SMALL, num_heldout=60), "heldout"):
        plain = replace(scene, groups=tuple(replace(group, texture="plain") for group in scene.groups))
        plain = replace(plain, background="plain")
        masks = masks_of_colors(render(plain, rng, image_size=64).picture)
        for group in plain.groups:
            count = count_blobs(masks[group.color])
            assert count == group.count, (group, count)
            assert re.search(rf"\b{words[count]} (\w+ ){{0,2}}{group.color}", describe(plain, rng))
            num_groups += 1
    assert num_groups > 60


def test_negatives_keep_the_wording_and_describe_another_scene(corpus: Path) -> None:
    rows = lines(corpus / "composition.jsonl")
    scenes = [scene for scene, _ in draw_split(SMALL, "heldout")]
    assert len({row["kind"] for row in rows}) == 5
    for row in rows:
        caption, negative = row["caption"].split(), row["negative"].split()
        assert caption != negative
        assert 0 <= row["image"] < len(scenes)
        if row["kind"].startswith("replace") and len(caption) == len(negative):
            # A changed color or shape can also change its article.
            assert sum(a != b for a, b in zip(caption, negative, strict=True)) <= 6
    for index, scene in enumerate(scenes):
        for altered in alterations(scene, Random(index)).values():
            assert altered.content != scene.content


def test_classes_are_balanced_and_show_their_color(corpus: Path) -> None:
    meta = json.loads((corpus / "classification" / "meta.json").read_text())
    train = pq.read_table(corpus / "classification" / "train.parquet").to_pylist()
    test = pq.read_table(corpus / "classification" / "test.parquet").to_pylist()
    assert all("{}" in template for template in meta["templates"])
    assert Counter(row["label"] for row in train) == dict.fromkeys(range(10), 10)
    assert Counter(row["label"] for row in test) == dict.fromkeys(range(10), 2)
    assert {row["image"] for row in train}.isdisjoint(row["image"] for row in test)
    for row in train:
        color, _ = meta["classes"][row["label"]].split()
        assert masks_of_colors(Image.open(io.BytesIO(row["image"])))[color].sum() >= 100


def test_neither_color_nor_shape_alone_tells_a_class(corpus: Path) -> None:
    classes = json.loads((corpus / "classification" / "meta.json").read_text())["classes"]
    words = [name.split() for name in classes]
    assert set(Counter(color for color, _ in words).values()) == {2}
    assert set(Counter(shape for _, shape in words).values()) == {2}
    assert len(set(classes)) == 10


def test_every_class_name_is_in_the_words_of_the_captions(corpus: Path) -> None:
    classes = json.loads((corpus / "classification" / "meta.json").read_text())["classes"]
    words = (corpus / "train" / "captions.jsonl").read_text()
    assert all(word in words for name in classes for word in name.split())


def test_images_are_rgb_jpegs_of_the_asked_size(tmp_path: Path) -> None:
    config = TinyWorldConfig(
        num_train=2, num_heldout=1, num_labelled_per_class=1, num_test_per_class=1, image_size=96
    )
    write_corpus(config, tmp_path)
    image = Image.open(tmp_path / "train" / "000001.jpg")
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (96, 96))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(("key", "value"), [("num_train", 0), ("image_size", 8), ("captions_per_image", 99)])
def test_impossible_settings_are_refused_by_key_and_value(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{key} must be in .* got {value}"):
        replace(TinyWorldConfig(), **{key: value})
