"""Sets as others keep them become evaluation sets, or are refused in one line that names what is wrong."""

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from pipelines.commands.main import main
from vlp.evaluation.sets import CaptionedImages, LabelledImages


def picture(seed: int, format: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def write(file: Path, seed: int) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture(seed))
    return picture(seed)


def convert(output: Path, *settings: str, code: int = 0) -> str:
    """What the command says, in one line."""
    layout = [f"layout.{setting}" for setting in settings]
    result = CliRunner().invoke(main, ["convert-set", *layout, "-o", str(output)])
    assert result.exit_code == code, result.output
    said = result.output.strip() if code == 0 else result.output.strip().removeprefix("vlp: ")
    assert "\n" not in said
    return said


def labelled(folder: Path) -> LabelledImages:
    data = LabelledImages("x", folder)
    data.check()
    return data


def rows(data: LabelledImages, split: str) -> list[tuple[bytes, str]]:
    table = getattr(data, split)
    return [(image, data.classes[label]) for image, label in zip(table.images(), table.labels(), strict=True)]


@pytest.mark.parametrize(("test", "named"), [("test", False), ("val", False), ("validation", True)])
def test_folders_of_classes(tmp_path: Path, test: str, named: bool) -> None:
    source = tmp_path / "source"
    train = [
        (write(source / "train" / kind / "a.jpg", seed), kind)
        for seed, kind in enumerate(("cat", "dog", "owl"))
    ]
    tests = [
        (write(source / test / kind / "deep" / "b.JPEG", seed), kind)
        for seed, kind in enumerate(("dog", "owl"), 5)
    ]
    (source / "train" / "cat" / "notes.txt").write_text("no image")
    settings, names = ["name=image_folder", f"folder={source}"], {"cat": "cat", "dog": "dog", "owl": "owl"}
    if named:
        names = {"cat": "a cat", "dog": "a dog", "owl": "an owl"}
        content = {"classes": list(names.values()), "templates": ["this is {}"]}
        (tmp_path / "names.json").write_text(json.dumps(content))
        settings.append(f"names={tmp_path / 'names.json'}")
    said = convert(tmp_path / "set", *settings)
    assert said.endswith(f"use it: evaluation.classification.set={tmp_path / 'set'}")
    data = labelled(tmp_path / "set")
    assert rows(data, "train") == [(image, names[kind]) for image, kind in train]
    assert rows(data, "test") == [(image, names[kind]) for image, kind in tests]
    assert data.templates == (["this is {}"] if named else ["a photo of a {}."])


def test_folders_of_classes_alone_are_tested_on(tmp_path: Path) -> None:
    expected = [
        (write(tmp_path / "source" / kind / "a.png", seed), kind) for seed, kind in enumerate(("x", "y"))
    ]
    convert(tmp_path / "set", "name=image_folder", f"folder={tmp_path / 'source'}")
    data = labelled(tmp_path / "set")
    assert rows(data, "test") == expected
    assert not data.has_train


SYNSETS = ["n01440764", "n01443537", "n01484850", "n01491361"]


@pytest.fixture
def imagenet(tmp_path: Path) -> list[str]:
    (tmp_path / "synsets.txt").write_text("\n".join(SYNSETS))
    names = {"classes": ["tench", "goldfish", "shark", "tiger shark"], "templates": ["a {}."]}
    (tmp_path / "names.json").write_text(json.dumps(names))
    return ["name=imagenet", f"synsets={tmp_path / 'synsets.txt'}", f"names={tmp_path / 'names.json'}"]


def test_some_classes_of_imagenet_keep_their_indices(tmp_path: Path, imagenet: list[str]) -> None:
    """As ImageNet-A and -R; and ImageNet-O, with images of no class."""
    expected = [write(tmp_path / "a" / SYNSETS[index] / "x.jpg", index) for index in (1, 3)]
    outside = write(tmp_path / "o" / "n00000001" / "x.jpg", 9)
    convert(tmp_path / "set", *imagenet, f"folder={tmp_path / 'a'}", f"outside={tmp_path / 'o'}")
    data = labelled(tmp_path / "set")
    assert (data.among, data.test.labels()) == ([1, 3], [1, 3, -1])
    assert list(data.test.images()) == [*expected, outside]
    assert data.classes == ["tench", "goldfish", "shark", "tiger shark"]


@pytest.mark.parametrize("numbers", [False, True])
def test_all_classes_of_imagenet_by_ids_or_numbers(
    tmp_path: Path, imagenet: list[str], numbers: bool
) -> None:
    """As ImageNet and -Sketch, and as ImageNet-V2, whose 10 comes after 9."""
    for index, synset in enumerate(SYNSETS):
        write(tmp_path / "a" / (str(index) if numbers else synset) / "x.jpg", index)
        write(tmp_path / "t" / synset / "y.jpg", 10 + index)
    convert(tmp_path / "set", *imagenet, f"folder={tmp_path / 'a'}", f"train={tmp_path / 't'}")
    data = labelled(tmp_path / "set")
    assert data.among is None
    assert list(data.test.images()) == [picture(index) for index in range(4)]
    assert data.test.labels() == data.train.labels() == [0, 1, 2, 3]


def captioned(folder: Path) -> list[tuple[bytes, list[str]]]:
    data = CaptionedImages("x", folder)
    data.check()
    return list(zip(data.images.images(), data.images.labels(), strict=True))


def test_captions_of_coco(tmp_path: Path) -> None:
    images = {key: write(tmp_path / "val2017" / f"{key}.jpg", key) for key in (7, 3, 5)}
    content = {
        "images": [{"id": key, "file_name": f"{key}.jpg"} for key in images],
        "annotations": [
            {"id": 1, "image_id": 3, "caption": "three"},
            {"id": 2, "image_id": 7, "caption": "seven"},
            {"id": 3, "image_id": 3, "caption": "drei"},
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    said = convert(
        tmp_path / "coco",
        "name=coco_captions",
        f"annotations={tmp_path / 'captions.json'}",
        f"images={tmp_path / 'val2017'}",
    )
    assert said.startswith("2 in ")
    assert said.endswith(f"evaluation.retrieval.coco={tmp_path / 'coco'}")
    assert captioned(tmp_path / "coco") == [(images[7], ["seven"]), (images[3], ["three", "drei"])]


def test_splits_of_karpathy(tmp_path: Path) -> None:
    sources = [("val2014", "a.jpg", "test"), ("", "b.jpg", "train"), ("", "c.jpg", "test")]
    images = [write(tmp_path / path / name, seed) for seed, (path, name, _) in enumerate(sources)]
    content: dict[str, list[Any]] = {"images": []}
    for path, name, split in sources:
        one = {
            "filename": name,
            "split": split,
            "sentences": [{"raw": f"{name} {i}", "tokens": []} for i in (1, 2)],
        }
        content["images"].append({**one, "filepath": path} if path else one)
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    settings = ["name=karpathy", f"annotations={tmp_path / 'dataset.json'}", f"images={tmp_path}"]
    convert(tmp_path / "out" / "set", *settings)
    assert captioned(tmp_path / "out" / "set") == [
        (images[0], ["a.jpg 1", "a.jpg 2"]),
        (images[2], ["c.jpg 1", "c.jpg 2"]),
    ]
    said = convert(tmp_path / "other", *settings, "split=tset", code=2)
    assert said == f"layout.split is 'tset'; {tmp_path / 'dataset.json'} has test, train"


def hugging_face(file: Path, seeds: Sequence[int], **others: Any) -> None:
    """As `datasets` writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"img": [{"bytes": picture(seed), "path": f"{seed}.jpg"} for seed in seeds], **others})
    features = {"img": {"_type": "Image"}, "fine": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(about), file)


def test_files_of_the_hugging_face_hub(tmp_path: Path) -> None:
    data = tmp_path / "hub" / "data"
    hugging_face(data / "train-00000-of-00002.parquet", [0, 1], fine=[0, 1], text=["x", "y"])
    hugging_face(data / "train-00001-of-00002.parquet", [2], fine=[1], text=["z"])
    hugging_face(data / "validation-00000-of-00001.parquet", [3], fine=[0], text=["w"])
    settings = ["name=hugging_face", f"folder={tmp_path / 'hub'}", "image=img"]
    convert(tmp_path / "set", *settings)
    found = labelled(tmp_path / "set")
    assert rows(found, "train") == [(picture(0), "ant"), (picture(1), "bee"), (picture(2), "bee")]
    assert rows(found, "test") == [(picture(3), "ant")]
    convert(tmp_path / "texts", *settings, "captions=text", "split=train")
    assert captioned(tmp_path / "texts") == [(picture(0), ["x"]), (picture(1), ["y"]), (picture(2), ["z"])]
    said = convert(tmp_path / "no", *settings[:2], code=2)
    assert said == f"layout: {data / 'train-00000-of-00002.parquet'} has no column image"
    assert not (tmp_path / "no").exists()
    said = convert(tmp_path / "no", *settings, "label=coarse", code=2)
    assert said.endswith("has no column coarse of which the schema names the classes; it has fine")


def test_what_torchvision_keeps(tmp_path: Path) -> None:
    """MNIST's own files, with two images to learn from and one to test on."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = {"train": np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)}
    pixels["t10k"] = 255 - pixels["train"][:1]
    for split, labels in (("train", [3, 9]), ("t10k", [7])):
        head = struct.pack(">IIII", 2051, len(labels), 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + pixels[split].tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, len(labels)) + bytes(labels)
        )
    convert(tmp_path / "set", "name=torchvision", "dataset=MNIST", f"folder={tmp_path / 'data'}")
    found = labelled(tmp_path / "set")
    assert (found.train.labels(), found.test.labels()) == ([3, 9], [7])
    assert found.classes[7] == "7 - seven"
    (image,) = found.test.images()
    assert np.array_equal(np.array(Image.open(io.BytesIO(image))), pixels["t10k"][0])
    settings = ["name=torchvision", f"folder={tmp_path}"]
    for dataset, message in (
        ("MNISTT", "layout.dataset is 'MNISTT'; torchvision has no set of train and test images so"),
        ("CIFAR10", f"layout.folder: {tmp_path} does not hold CIFAR10: Dataset not found or corrupted."),
    ):
        assert convert(tmp_path / "no", *settings, f"dataset={dataset}", code=2).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["name=image_folder", "folder=nowhere"], "layout.folder: nowhere is not a folder"),
        (["name=image_folder", "folder=empty"], "layout.folder: empty has no folders of classes"),
        (
            ["name=image_folder", "folder=only"],
            "layout.folder: only has a folder train, but none of test, val, validation",
        ),
        (
            ["name=image_folder", "folder=good", "names=names.json"],
            "layout.names: names.json has 3 `classes`, and there are 1",
        ),
        (["name=image_folder", "folder=broken"], "layout: broken/cat/a.jpg is missing or empty"),
        (
            ["name=imagenet", "folder=good", "synsets=names.json", "names=names.json"],
            "layout.folder: good/cat is neither a WordNet id of synsets nor the number of a class",
        ),
        (
            ["name=coco_captions", "annotations=names.json", "images=good"],
            "layout.annotations: names.json is not of COCO's form: it lacks 'annotations'",
        ),
        (
            ["name=karpathy", "annotations=nowhere.json", "images=good"],
            "layout.annotations: no such file: nowhere.json",
        ),
        (
            ["name=hugging_face", "folder=good"],
            "layout.split: good has none of test, validation, val, valid; it has no files",
        ),
        (
            ["name=imagefolder"],
            "command line: layout.name is 'imagefolder'; did you mean image_folder?",
        ),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write(Path("only/train/cat/a.jpg"), 0)
    write(Path("good/cat/a.jpg"), 0)
    write(Path("broken/cat/a.jpg"), 0)
    Path("broken/cat/a.jpg").write_bytes(b"")
    Path("names.json").write_text('{"classes": ["a", "b", "c"]}')
    assert convert(Path("set"), *settings, code=2).startswith(message)
    assert not Path("set").exists()


def test_a_set_that_is_there_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "source" / "cat" / "a.jpg", 0)
    (tmp_path / "set").mkdir()
    said = convert(tmp_path / "set", "name=image_folder", f"folder={tmp_path / 'source'}", code=2)
    assert said == f"{tmp_path / 'set'} is there; delete it, or choose another output"
