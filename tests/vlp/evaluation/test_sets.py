"""A set that cannot be measured on is told before any work, by the file at fault."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vlp.evaluation.sets import CaptionedImages, LabelledImages
from vlp.shards.storage.digests import sha256
from vlp.tiny_world import TinyWorldConfig

CORPUS = TinyWorldConfig(
    num_train=1, num_heldout=2, num_labelled_per_class=1, num_test_per_class=1, image_size=32
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    CORPUS.write(tmp_path)
    return tmp_path


def test_whole_sets_pass_and_name_their_files(folder: Path) -> None:
    pairs = CaptionedImages("a", folder / "retrieval.parquet")
    labelled = LabelledImages("b", folder / "classification")
    for data in (pairs, labelled):
        data.check()
    assert (pairs.key, labelled.key) == ("retrieval.a", "classification.b")
    assert [str(file) for file in pairs.images.files] == [str(folder / "retrieval.parquet")]
    assert pairs.digest(sha256) != labelled.digest(sha256)
    before = labelled.digest(sha256)
    for file in (folder / "classification").iterdir():
        whole = file.read_bytes()
        file.write_bytes(whole + b" ")
        assert labelled.digest(sha256) != before
        file.write_bytes(whole)
    assert labelled.digest(sha256) == before


@pytest.mark.parametrize("missing", ["test.parquet", "meta.json"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / "classification" / missing).unlink()
    with pytest.raises(ValueError, match=rf"^no such file: .*{missing}$"):
        LabelledImages("x", folder / "classification").check()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ('{"classes": ["a"], "templates": ["a photo"]}', "got 'a photo'"),
        ('{"names": ["a"]}', r"meta\.json does not name the classes"),
        ('["a"]', r"meta\.json does not name the classes"),
        ("classes: [a]", r"meta\.json is not JSON: "),
    ],
)
def test_a_description_that_says_too_little_is_named(folder: Path, meta: str, message: str) -> None:
    (folder / "classification" / "meta.json").write_text(meta)
    with pytest.raises(ValueError, match=message):
        LabelledImages("x", folder / "classification").check()


def test_classes_without_templates_get_the_usual_one(folder: Path) -> None:
    (folder / "classification" / "meta.json").write_text(json.dumps({"classes": list("abcdefghij")}))
    data = LabelledImages("x", folder / "classification")
    data.check()
    assert data.templates == ["a photo of a {}."]


def test_a_file_of_another_kind_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks the columns image and captions; it has image, label$"):
        CaptionedImages("x", folder / "classification" / "train.parquet").check()
    shutil.copy(folder / "composition.jsonl", folder / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet is not a Parquet file"):
        CaptionedImages("x", folder / "x.parquet").check()


def test_labels_are_of_classes_that_an_image_may_be_of(folder: Path) -> None:
    labelled, meta = (
        folder / "classification",
        json.loads((folder / "classification" / "meta.json").read_text()),
    )
    images = pq.read_table(labelled / "test.parquet")
    labels = images["label"].to_pylist()
    (labelled / "meta.json").write_text(json.dumps(meta | {"among": labels}))
    pq.write_table(images.set_column(1, "label", [[-1, *labels[1:]]]), labelled / "test.parquet")
    LabelledImages("x", labelled).check()
    (labelled / "meta.json").write_text(json.dumps(meta | {"among": labels[:-1]}))
    with pytest.raises(ValueError, match=r"test\.parquet has the label 9, of no class .* has 10 classes$"):
        LabelledImages("x", labelled).check()
    (labelled / "meta.json").write_text(json.dumps(meta | {"among": [0, 99]}))
    with pytest.raises(ValueError, match=r"`among` must be indices of the 10 classes"):
        LabelledImages("x", labelled).check()
    (labelled / "meta.json").write_text(json.dumps(meta | {"classes": meta["classes"][:9]}))
    pq.write_table(images.slice(0, 3), labelled / "test.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet has the label 9"):
        LabelledImages("x", labelled).check()
