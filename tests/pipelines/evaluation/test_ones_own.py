"""A protocol and an objective of one's own, registered, do all that ours do."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn

from pipelines.checkpoints.checkpoint import find_checkpoint
from pipelines.commands.main import main
from pipelines.config.errors import ConfigError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.evaluation.evaluate import evaluation_identity, measure_checkpoint
from pipelines.reports.comparison import Comparison, Row
from pipelines.reports.summary import summary_tables
from pipelines.reports.tables import print_table
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.encoders import ImageEncoder
from vlp.evaluation import EVALUATIONS, Evaluation
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.sets import LabelledImages
from vlp.masking import MaskStrategy, Slots
from vlp.metrics.outcomes import Answers
from vlp.objectives import OBJECTIVES, Batch, Objective, ObjectiveConfig, Step, Vocabulary
from vlp.run import RunConfig, validation_metric
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.digests import Digests
from vlp.shards.storage.local import LocalFolder

MakeRun = Callable[..., RunConfig]
IN_THIS_PROCESS = MachineConfig(
    num_workers=0, log_every_steps=1, checkpoints=CheckpointSettings(every_steps=1)
)


@dataclass(frozen=True, kw_only=True)
class EvenClasses(Evaluation[LabelledImages]):
    """Gives every image the class that is set, whatever it shows."""

    name = "even"
    reads = LabelledImages
    headings: ClassVar = {"even/acc1": "even"}

    answer: int = 0

    def __post_init__(self) -> None:
        if self.answer < 0:
            raise ValueError(f"answer must not be negative, got {self.answer}")

    @property
    def main_metric(self) -> str:
        return "even/acc1"

    def measure(self, model: Embedder, data: LabelledImages) -> Mapping[str, Answers]:
        assert not model.objective.training
        assert len(model.features(data.test)) == len(data.test.labels())
        return {"even": Answers(torch.tensor(data.test.labels())[None] == self.answer)}


@dataclass(frozen=True, kw_only=True)
class BagsConfig(ObjectiveConfig):
    """Pulls the mean of an image's patches to the mean of its words."""

    name: Literal["bags"] = "bags"
    encodes_text: ClassVar[bool] = True

    def build(self, image_encoder: ImageEncoder, mask: MaskStrategy, *, vocabulary: Vocabulary) -> "Bags":
        return Bags(image_encoder, mask, vocabulary)


class Bags(Objective):
    """Also predicts images: their negatives."""

    def __init__(self, image_encoder: ImageEncoder, mask: MaskStrategy, vocabulary: Vocabulary) -> None:
        super().__init__(image_encoder, mask)
        self.words = nn.Embedding(vocabulary.size, image_encoder.width)

    def encode(self, batch: Batch, slots: Slots) -> tuple[Tensor, Tensor]:
        images = self.project(self.image_encoder(batch.images, slots)[:, 1:].mean(dim=1))
        return images, self.encode_text(batch.tokens, batch.lengths)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch, slots: Slots) -> Step:
        images, texts = outputs
        return Step((images - texts).square().mean(), {})

    def features(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)[:, 1:].mean(dim=1)

    def project(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return F.normalize(self.words(tokens).sum(dim=1), dim=-1)

    def rebuild(self, images: Tensor, slots: Slots) -> Tensor:
        return -images


@pytest.fixture
def own_protocol() -> Iterator[None]:
    EVALUATIONS.register(EvenClasses)
    yield
    del EVALUATIONS["even"]


@pytest.fixture
def own_objective() -> Iterator[None]:
    OBJECTIVES.register(BagsConfig)
    yield
    del OBJECTIVES["bags"]


@pytest.fixture
def sets(tiny_world: Path) -> dict[str, Any]:
    return {
        "retrieval": {"scenes": str(tiny_world / "retrieval.parquet")},
        "classification": {"shapes": str(tiny_world / "classification")},
    }


def train(run: RunConfig, output: Path) -> Path:
    journal = Journal(output.parent / "journal")
    journal.begin(name=run.name, tags={})
    pretrain(run, output, machine=IN_THIS_PROCESS, journal=journal)
    return find_checkpoint(output)


@pytest.fixture
def run_folder(tiny_run: MakeRun, tmp_path: Path) -> Path:
    train(tiny_run(training={"length": {"steps": 1}}, lr_schedule={"warmup_steps": 0}), tmp_path / "run")
    return tmp_path / "run"


def test_the_command_measures_it_by_its_settings(
    ray_cluster: None, run_folder: Path, own_protocol: None, sets: dict[str, Any], tmp_path: Path
) -> None:
    """The sample corpus has one test image of each of its ten classes."""
    command = [
        "evaluate",
        f"checkpoint={run_folder}",
        f"machine.storage={tmp_path}",
        "-o",
        str(tmp_path / "out"),
    ]
    command.append(f"evaluation.classification.shapes={sets['classification']['shapes']}")
    result = CliRunner().invoke(main, [*command, "evaluation.protocols.even.answer=3"])
    assert result.exit_code == 0, result.output
    assert "shapes/even/acc1                 0.1000  [0.0025, 0.4450]" in result.output
    assert "shapes/knn/acc1" in result.output
    result = CliRunner().invoke(main, [*command, "evaluation.protocols.even.answer=-1"])
    assert "evaluation.protocols.even.answer must not be negative, got -1" in result.output


def test_validation_measures_it_and_may_compare_checkpoints_by_it(
    own_protocol: None, tiny_run: MakeRun, sets: dict[str, Any], tmp_path: Path
) -> None:
    others = dict.fromkeys(("knn", "zero_shot", "retrieval"))
    run = tiny_run(
        evaluation=sets | {"every_steps": 1, "protocols": others}, training={"length": {"steps": 2}}
    )
    assert validation_metric(run) == "val/shapes/even/acc1"
    train(run, tmp_path / "run")
    records = [r.fields for r in Journal(tmp_path / "journal").read() if r.kind == "metrics"]
    measured = {r["step"]: r["metrics"] for r in records if "val/shapes/even/acc1" in r["metrics"]}
    assert sorted(measured) == [1, 2]
    assert {key.split("/")[2] for key in measured[2]} == {"even", "few_shot", "linear_probe"}
    assert measured[2]["val/shapes/even/acc1"] == pytest.approx(0.1)


def test_a_misspelt_protocol_is_answered_with_the_nearest(
    own_protocol: None, tiny_run: MakeRun, sets: dict[str, Any]
) -> None:
    for given, expected in (("evn", "even"), ("knm", "knn"), ("fewshot", "few_shot")):
        with pytest.raises(
            ConfigError,
            match=rf"protocols\.{given} is not a setting; did you mean evaluation\.protocols\.{expected}\?",
        ):
            tiny_run(evaluation=sets | {"protocols": {given: {}}})
    with pytest.raises(ConfigError, match=f"valid: {', '.join(sorted(EVALUATIONS))}"):
        tiny_run(evaluation=sets | {"protocols": {"xxxxxxxx": {}}})


def test_its_settings_decide_the_identity_of_an_evaluation(
    own_protocol: None, sets: dict[str, Any], tmp_path: Path
) -> None:
    paths = {kind: {name: open_folder(path) for name, path in one.items()} for kind, one in sets.items()}
    former, same, other, none = (
        evaluation_identity(
            EvaluationConfig(
                retrieval=paths["retrieval"], classification=paths["classification"], protocols=protocols
            ),
            Digests(LocalFolder(tmp_path / "digests")),
        )
        for protocols in (
            {"even": EvenClasses()},
            {"even": EvenClasses(answer=0), "knn": None},
            {"even": EvenClasses(answer=1)},
            {},
        )
    )
    assert former == same
    assert former["protocols"] == {"even": {"answer": 0}}
    assert former["files"] == other["files"]
    assert len({str(one["protocols"]) for one in (former, other, none)}) == 3


def test_the_final_table_has_its_column(own_protocol: None, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("mae", "mae", "random", {"pets/even/acc1": 0.125, "pets/even/other": 0.5}, 1.0)]
    (table,) = summary_tables(Comparison(name="x", rows=rows, chance={}))
    print_table(table)
    words = capsys.readouterr().out.split()
    assert "even" in words
    assert "12.5%" in words
    assert "50.0%" not in words


def test_an_objective_is_measured_by_all_that_it_says_it_can(
    own_objective: None, tiny_run: MakeRun, sets: dict[str, Any], tmp_path: Path
) -> None:
    run = tiny_run(
        objective={"name": "bags"},
        evaluation=sets | {"every_steps": 1},
        training={"length": {"steps": 1}},
        lr_schedule={"warmup_steps": 0},
    )
    assert validation_metric(run) == "val/scenes/text_to_image/recall@1"
    checkpoint = train(run, tmp_path / "run")
    measured = measure_checkpoint(checkpoint, run.evaluation)
    protocols = {key.split("/")[1] for key in measured.metrics}
    assert protocols == {"text_to_image", "image_to_text", "few_shot", "knn", "linear_probe", "zero_shot"}


def test_an_objective_with_a_rebuild_of_its_own_has_a_picture_of_it(
    own_objective: None, tiny_run: MakeRun, sets: dict[str, Any], tmp_path: Path
) -> None:
    run = tiny_run(
        objective={"name": "bags"}, training={"length": {"steps": 1}}, lr_schedule={"warmup_steps": 0}
    )
    checkpoint = train(run, tmp_path / "run")
    evaluation = EvaluationConfig(retrieval={"scenes": open_folder(sets["retrieval"]["scenes"])})
    picture = measure_checkpoint(checkpoint, evaluation).pictures["reconstructions"]
    assert picture.size > (4 * 128, 6 * 128)


def test_what_cannot_be_measured_is_refused_in_one_line(
    tiny_run: MakeRun, sets: dict[str, Any], tmp_path: Path
) -> None:
    superclass = {
        "objective": {"name": "superclass"},
        "mask": {"name": "none"},
        "training": {"length": {"steps": 1}},
        "lr_schedule": {"warmup_steps": 0},
    }
    train(tiny_run(**superclass), tmp_path / "run")
    command = ["evaluate", f"checkpoint={tmp_path / 'run'}", f"machine.storage={tmp_path}"]
    for given, reason in (
        (
            f"retrieval.scenes={sets['retrieval']['scenes']}",
            "retrieval needs a text encoder, and objective superc",
        ),
        (
            "retrieval={}",
            "set evaluation.{retrieval,classification,choice,captioning,judgement}.NAME",
        ),
    ):
        result = CliRunner().invoke(main, [*command, f"evaluation.{given}"])
        assert result.exit_code == 2
        assert reason in result.output
        assert len(result.output.splitlines()) == 1
