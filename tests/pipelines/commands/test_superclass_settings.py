"""Losses and tokenizers are picked by name; what cannot work is told in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.errors import ConfigError
from pipelines.config.settings import Layers, absolute_paths, build, to_dict
from pipelines.workflow.plan import PipelineConfig, Plan
from tests.paths import REPOSITORY
from vlp.losses.contrastive import SigmoidLoss
from vlp.losses.labels import AsymmetricLoss, TwoWayLoss
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.superclass import SuperClassConfig
from vlp.run import RunConfig
from vlp.tokenizers.wordpiece import WordPieceConfig


def run(**objective: Any) -> RunConfig:
    return build(RunConfig, Layers().add({"name": "x", "objective": objective}, "x.yaml"))


def test_losses_are_picked_by_name_with_settings_of_their_own() -> None:
    asl = run(name="superclass", idf="none", loss={"name": "asl", "gamma_negative": 2})
    assert isinstance(asl.objective, SuperClassConfig)
    assert asl.objective.loss == AsymmetricLoss(gamma_negative=2)
    sigmoid = run(name="contrastive", loss={"name": "sigmoid", "initial_bias": -5})
    assert isinstance(sigmoid.objective, ContrastiveConfig)
    assert sigmoid.objective.loss == SigmoidLoss(initial_bias=-5)
    for config in (asl, sigmoid):
        assert build(RunConfig, Layers().add(to_dict(config), "saved")) == config


def test_naming_another_loss_starts_from_its_own_defaults() -> None:
    layers = Layers().add(to_dict(run(name="superclass", idf="none", loss={"name": "asl"})), "x.yaml")
    two_way = build(RunConfig, layers.set({"objective.loss.name": "two_way"}, "sweep"))
    assert isinstance(two_way.objective, SuperClassConfig)
    assert two_way.objective.loss == TwoWayLoss()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "superclass", "loss": {"name": "azl"}}, "objective.loss.name is 'azl'; did you mean asl?"),
        ({"name": "superclass", "loss": {"gamma_negative": 2}}, "objective.loss needs a name"),
        (
            {"name": "superclass", "loss": {"name": "asl", "gama": 2}},
            "objective.loss.gama is not a setting; valid:",
        ),
        ({"name": "superclass", "loss": {"name": "asl", "margin": 2}}, "objective.loss.margin must be in"),
        ({"name": "superclass", "loss": {"name": "bce"}}, "objective.idf must be none for the loss bce"),
        (
            {"name": "superclass", "idf": "offline", "special_tokens": "keep"},
            "objective.special_tokens must be drop",
        ),
        ({"name": "contrastive", "loss": {"name": "softmax"}}, "objective.loss.name is 'softmax'"),
    ],
)
def test_a_wrong_loss_is_told_in_one_line(objective: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        run(**objective)
    assert message in str(error.value)
    assert str(error.value).startswith("x.yaml")


def plan(tokenizer: dict[str, Any], *, idf: str = "offline") -> Plan:
    config = PipelineConfig(
        name="p",
        corpus={"name": "tiny_world"},  # pyright: ignore[reportArgumentType]
        docfreq={"tokenizer": {"name": "clip_bpe", "context_length": 40}},
        runs=[
            {"base": "conf/run/superclass.yaml", "objective": {"idf": idf}, "tokenizer": tokenizer},
        ],
    )
    return Plan(build(PipelineConfig, Layers().add(to_dict(config), "p.yaml")))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def test_frequencies_that_a_run_cannot_read_stop_a_pipeline_before_it_starts() -> None:
    plan({"name": "clip_bpe", "context_length": 40}).check()
    plan({"name": "clip_bpe", "context_length": 77}, idf="online").check()
    for other in ({"context_length": 77}, {"context_length": 40, "stop_words": "drop"}):
        with pytest.raises(ConfigError, match=r"not the tokenizer of superclass.*context_length"):
            plan({"name": "clip_bpe", **other}).check()


def test_a_missing_vocabulary_stops_a_pipeline_before_it_starts() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer of superclass: no such file: nowhere\.txt"):
        plan({"name": "wordpiece", "vocab_file": "nowhere.txt"}, idf="online").check()


def test_workers_find_the_vocabulary_from_another_folder() -> None:
    config = replace(run(name="superclass"), tokenizer=WordPieceConfig(vocab_file=Path("vocab.txt")))
    tokenizer = absolute_paths(config).tokenizer
    assert isinstance(tokenizer, WordPieceConfig)
    assert tokenizer.vocab_file == Path.cwd() / "vocab.txt"
