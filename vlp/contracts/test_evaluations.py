"""What holds for every registered protocol of evaluation."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from vlp.contracts import settings
from vlp.encoders.text import TextConfig
from vlp.encoders.vit import ViTConfig
from vlp.evaluation import EVALUATIONS
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.measure import measure
from vlp.evaluation.outcome_table import read_outcomes, write_outcomes
from vlp.masking.none import NoMask
from vlp.metrics.intervals import named_intervals
from vlp.metrics.outcomes import NoOutcomesError, named_metrics
from vlp.objectives import ObjectiveConfig, Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.fine_tuning import FineTuningConfig
from vlp.objectives.mae import MAEConfig
from vlp.shards.storage.local import LocalFolder
from vlp.tiny_world import TinyWorldConfig
from vlp.tokenizers.classes import ClassesConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig

CONTRASTIVE = ContrastiveConfig(embed_dim=8, text_encoder=TextConfig(width=8, depth=1, num_heads=1))
CLASSES = FineTuningConfig()
CORPUS = TinyWorldConfig(
    num_train=1, num_heldout=6, num_labelled_per_class=2, num_test_per_class=2, image_size=32
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    CORPUS.write(folder)
    _write_choices(folder)
    _write_judgements(folder)
    (folder / "captioning").mkdir()
    for split in ("train", "test"):
        shutil.copy(folder / "retrieval.parquet", folder / "captioning" / f"{split}.parquet")
    return folder


def _write_choices(folder: Path) -> None:
    """The held-out scenes with the captions that are wrong in one word."""
    images = pq.read_table(folder / "retrieval.parquet", columns=["image"])
    (folder / "choice").mkdir()
    names = images.append_column("filename", [[str(i) for i in range(len(images))]])
    pq.write_table(names, folder / "choice" / "images.parquet")
    rows = map(json.loads, (folder / "composition.jsonl").read_text().splitlines())
    items = {
        str(i): {
            "filename": str(row["image"]),
            "caption": row["caption"],
            "negative_caption": row["negative"],
        }
        for i, row in enumerate(rows)
    }
    (folder / "choice" / "choices.json").write_text(json.dumps({"all": items}))


def _write_judgements(folder: Path) -> None:
    """The same scenes and captions: right ones are judged higher, by two people."""
    (folder / "judgement").mkdir()
    shutil.copy(folder / "choice" / "images.parquet", folder / "judgement")
    rows = map(json.loads, (folder / "composition.jsonl").read_text().splitlines())
    judged = [
        {"filename": str(row["image"]), "caption": row[text], "judgements": judgements}
        for row in rows
        for text, judgements in (("caption", [4, 3]), ("negative", [1, 3]))
    ]
    (folder / "judgement" / "judgements.json").write_text(json.dumps(judged))


def _folders(sets: Mapping[str, Path]) -> dict[str, LocalFolder]:
    return {name: LocalFolder(path) for name, path in sets.items()}


@pytest.fixture(params=sorted(EVALUATIONS))
def config(request: pytest.FixtureRequest, folder: Path) -> EvaluationConfig:
    """One protocol alone, with its defaults, on the sample corpus."""
    sets = CORPUS.evaluation_sets(folder)
    return EvaluationConfig(
        retrieval=_folders(sets["retrieval"]),
        classification=_folders(sets["classification"]),
        choice={"tiny_world": LocalFolder(folder / "choice")},
        captioning={"tiny_world": LocalFolder(folder / "captioning")},
        judgement={"tiny_world": LocalFolder(folder / "judgement")},
        protocols={request.param: EVALUATIONS[request.param](**settings.EVALUATIONS.get(request.param, {}))},
    )


@pytest.fixture
def measured(config: EvaluationConfig) -> ObjectiveConfig:
    """The objective of a model that the protocol measures."""
    (protocol,) = config.given_protocols.values()
    return CLASSES if protocol.needs_classes else CONTRASTIVE


@pytest.fixture
def model(measured: ObjectiveConfig, folder: Path) -> Embedder:
    torch.manual_seed(0)
    classes = ClassesConfig(path=folder / "classification" / "meta.json")
    tokenizer = (classes if measured.tells_classes else ClipBPEConfig(context_length=16)).build()
    encoder = ViTConfig(image_size=32, patch_size=8, width=16, depth=1, num_heads=2).build()
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.context_length, tokenizer.special_tokens)
    objective = measured.build(encoder, NoMask(), vocabulary=vocabulary)
    return Embedder(objective, tokenizer, image_size=32, normalization="clip")


def test_what_a_protocol_shows_and_compares_by_is_measured(
    config: EvaluationConfig, measured: ObjectiveConfig, model: Embedder
) -> None:
    (protocol,) = config.given_protocols.values()
    metrics = named_metrics(measure(model, config.measurements(measured)))
    of_set = [key.removeprefix("tiny_world/") for key in metrics]
    shown = protocol.details(of_set)
    assert shown
    assert protocol.columns(of_set).keys() <= shown.keys()
    assert set(of_set) <= protocol.metrics
    assert set(config.chance()) <= set(metrics)
    assert set(shown) <= set(of_set)
    assert all(-1 <= metrics[f"tiny_world/{metric}"] <= 1 for metric in shown)
    assert protocol.main_metric is None or f"tiny_world/{protocol.main_metric}" in metrics
    assert protocol.columns(["of/another"]) == protocol.details(["of/another"]) == {}


def test_a_model_is_left_as_it_was_and_measured_alike_again(
    config: EvaluationConfig, measured: ObjectiveConfig, model: Embedder
) -> None:
    before = {name: tensor.clone() for name, tensor in model.objective.state_dict().items()}
    state = torch.get_rng_state()
    first = named_metrics(measure(model, config.measurements(measured)))
    assert model.objective.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], x) for name, x in model.objective.state_dict().items())
    assert named_metrics(measure(model, config.measurements(measured))) == first


def test_a_model_without_numbers_is_refused_in_one_line(
    config: EvaluationConfig, measured: ObjectiveConfig, model: Embedder
) -> None:
    for parameter in model.objective.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    measurements = config.measurements(measured)
    if not all(one.protocol.reads_weights for one in measurements):
        pytest.skip("the weights change nothing")
    with pytest.raises(NoOutcomesError, match=r"^its features of \d+ of \d+ .* are not finite; .*$"):
        measure(model, measurements)


def test_every_number_has_an_interval_and_comes_from_a_table_of_items(
    config: EvaluationConfig, measured: ObjectiveConfig, model: Embedder, tmp_path: Path
) -> None:
    outcomes = measure(model, config.measurements(measured))
    write_outcomes(outcomes, tmp_path / "outcomes.parquet")
    again = read_outcomes(tmp_path / "outcomes.parquet")
    metrics, intervals = named_metrics(again), named_intervals(again)
    assert metrics == named_metrics(outcomes)
    assert intervals == named_intervals(outcomes)
    assert intervals.keys() == metrics.keys()
    assert all(interval.low <= metrics[key] <= interval.high for key, interval in intervals.items())


def test_a_protocol_refuses_models_without_what_it_needs_in_one_line(config: EvaluationConfig) -> None:
    (protocol,) = config.given_protocols.values()
    needs = {"text encoder": protocol.needs_text, "classifier": protocol.needs_classes}
    lines = config.refusals(MAEConfig())
    assert bool(lines) == any(needs.values()) == (not config.measurements(MAEConfig()))
    assert set(lines) == {
        f"{protocol.name} needs a {what}, and objective mae has none" for what in needs if needs[what]
    }
