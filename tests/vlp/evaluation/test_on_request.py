"""Protocols that cost more than others are measured where they are asked for, or refused."""

from pathlib import Path

import pytest

from vlp.core.plain import from_plain
from vlp.evaluation.config import EvaluationConfig
from vlp.objectives.mae import MAEConfig
from vlp.tiny_world import TinyWorldConfig, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(TinyWorldConfig(num_train=1, num_heldout=1, image_size=32), folder)
    return folder


def names(config: EvaluationConfig) -> set[str]:
    return {one.protocol.name for one in config.measurements(MAEConfig())}


def test_an_attentive_probe_is_measured_where_its_epochs_are_given(corpus: Path) -> None:
    sets = {"classification": {"shapes": str(corpus / "classification")}}
    assert "attentive_probe" not in names(from_plain(EvaluationConfig, sets))
    asked = {"protocols": {"attentive_probe": {"epochs": 3}}}
    assert "attentive_probe" in names(from_plain(EvaluationConfig, sets | asked))
    for settings, message in (
        ({}, r"epochs"),
        ({"epochs": 0}, r"epochs must be at least 1, got 0"),
        ({"epochs": 3, "lr": 0}, r"lr must be .*, got 0"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            from_plain(EvaluationConfig, sets | {"protocols": {"attentive_probe": settings}})
        assert "\n" not in str(refused.value)


def test_a_set_without_training_images_is_refused(corpus: Path, tmp_path: Path) -> None:
    for file in ("test.parquet", "meta.json"):
        (tmp_path / file).write_bytes((corpus / "classification" / file).read_bytes())
    asked = {"classification": {"shapes": str(tmp_path)}, "protocols": {"attentive_probe": {"epochs": 3}}}
    refusals = from_plain(EvaluationConfig, asked).refusals(MAEConfig())
    expected = "attentive_probe learns from images, and shapes has none: "
    assert any(line.startswith(expected) for line in refusals)
