"""A suite names what it lacks, and refuses a set that is not what it has to be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.paths import REPOSITORY, SHARED_DATA
from vlp.core.plain import from_plain
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.suite import Suite, names_digest
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.tiny_world import TinyWorldConfig

CORPUS = TinyWorldConfig(
    num_train=1, num_heldout=4, num_labelled_per_class=1, num_test_per_class=1, image_size=32
)
FILES = [
    file
    for file in sorted((REPOSITORY / "conf/evaluation").glob("*.yaml"))
    if "suite" in yaml.safe_load(file.read_text())["evaluation"]
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sets of the sample corpus: scenes.parquet and shapes/."""
    CORPUS.write(tmp_path)
    (tmp_path / "retrieval.parquet").rename(tmp_path / "scenes.parquet")
    (tmp_path / "classification").rename(tmp_path / "shapes")
    return tmp_path


def evaluation(folder: Path, /, others: dict[str, Any] | None = None, **shapes: Any) -> EvaluationConfig:
    """Of a suite of three sets, one of which is nowhere."""
    meta = json.loads((folder / "shapes" / "meta.json").read_text())
    kind = {"kind": "classification", "main_metric": "acc1", "chance": 0.1}
    sets = {
        "scenes": {"kind": "retrieval", "main_metric": "recall@1", "size": 4, "chance": 0.25},
        "shapes": kind | {"size": 10, "classes": names_digest(meta["classes"])} | shapes,
        "sun": kind | {"size": 9, "groups": ["natural"]},
    }
    suite = {"name": "mine", "folder": str(folder), "sets": sets}
    return from_plain(EvaluationConfig, {"suite": suite} | (others or {}))


def test_sets_that_are_there_are_measured_and_others_are_named(folder: Path) -> None:
    config = evaluation(folder)
    config.check()
    assert [data.path.name for data in config.sets] == ["scenes.parquet", "shapes"]
    assert config.missing == ["sun"]


def test_a_set_that_is_named_elsewhere_has_to_be_the_same(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    (folder / "shapes").rename(moved)
    shutil.copytree(moved, folder / "shapes")
    config = evaluation(folder, {"classification": {"shapes": str(moved)}})
    config.check()
    assert [data.folder.local_path for data in config.sets] == [moved, folder / "scenes.parquet"]
    config = evaluation(folder, {"retrieval": {"shapes": str(folder / "scenes.parquet")}})
    with pytest.raises(
        ValueError, match=r"^suite.sets.shapes: its kind is classification, and .* retrieval$"
    ):
        config.check()


def test_a_lost_image_is_an_error(folder: Path) -> None:
    file = folder / "shapes" / "test.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(ValueError, match=r"^suite.sets.shapes: it has 10 items, and .*shapes has 9"):
        evaluation(folder).check()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"classes": "0" * 16},
            r"its classes have the digest 0{16}, and those of .*, 10 in number, have \w{16}",
        ),
        ({"templates": "0" * 16}, r"its templates have the digest"),
        ({"chance": 0.2}, r"guessing gives 0\.2 of .*/acc1, and 0\.1"),
    ],
)
def test_other_names_or_another_chance_are_an_error(
    folder: Path, shapes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^suite\.sets\.shapes: {message}") as refused:
        evaluation(folder, **shapes).check()
    assert "\n" not in str(refused.value)


def test_names_in_another_order_are_others() -> None:
    assert names_digest(["a", "b"]) != names_digest(["b", "a"])
    assert names_digest(["a", "b"]) == names_digest(("a", "b"))


def test_a_suite_of_which_nothing_is_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^suite.folder: none of the sets of mine is there: .*scenes.parquet"
    ):
        from_plain(EvaluationConfig, {"suite": vars_of(evaluation(folder).suite, tmp_path / "no")}).check()


def vars_of(suite: Suite | None, folder: Path) -> dict[str, Any]:
    assert suite is not None
    sets = {name: {k: v for k, v in vars(one).items() if v is not None} for name, one in suite.sets.items()}
    return {"name": suite.name, "folder": str(folder), "sets": sets}


def test_sets_without_training_images_are_not_learned_from(folder: Path) -> None:
    (folder / "shapes" / "train.parquet").unlink()
    config = evaluation(folder)
    config.check()
    measured = [
        one.protocol.name for one in config.measurements(ContrastiveConfig()) if one.data.name == "shapes"
    ]
    assert measured == ["zero_shot"]
    refused = config.expected_of(ContrastiveConfig()).refusals(ContrastiveConfig())
    assert len(refused) == 3
    assert all("learns from images, and shapes has none: " in line for line in refused)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_our_suites_can_be_read(file: Path) -> None:
    suite = from_plain(EvaluationConfig, yaml.safe_load(file.read_text())["evaluation"]).suite
    assert suite is not None
    assert suite.name == file.stem
    for name, group in suite.groups.items():
        assert name not in suite.sets
        assert len(group) > 1


def test_our_digests_are_those_of_the_names_of_clip() -> None:
    file = SHARED_DATA / "text_assets" / "zero_shot_prompts.json"
    if not file.is_file():
        pytest.skip("needs the class names and templates of CLIP")
    known = json.loads(file.read_text()).values()
    names = {what: [one[what] for one in known] for what in ("classes", "templates")}
    digests = {
        what: {names_digest(one) for one in lists if isinstance(one[0], str)} for what, lists in names.items()
    }
    for suite in ("papers", "vtab"):
        content = yaml.safe_load((REPOSITORY / "conf" / "evaluation" / f"{suite}.yaml").read_text())
        for name, one in content["evaluation"]["suite"]["sets"].items():
            for what, known_digests in digests.items():
                assert one.get(what) in known_digests | {None}, name
