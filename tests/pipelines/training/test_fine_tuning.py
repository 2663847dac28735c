"""A labelled set to shards, an encoder tuned on its classes, and the accuracy of what it learned."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model
from pipelines.commands.main import main
from pipelines.config.errors import ConfigError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.evaluation.evaluate import check_measured, measure_checkpoint
from pipelines.shards.from_set import from_set
from pipelines.shards.verify import verify
from pipelines.tracking.journal import Journal
from pipelines.training.job import Part
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import resolve
from tests.pipelines.runs import IN_THIS_PROCESS
from vlp.evaluation.classifier import Classifier
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.knn import KNN
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.local import LocalFolder

MakeRun = Callable[..., RunConfig]
RECIPE = {
    "crop_scale": (0.3, 1.0),
    "horizontal_flip_prob": 0.5,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erasing_prob": 0.25,
}
MAE = {"name": "mae", "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture(scope="module")
def labelled(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labelled training images of the tiny world, as shards."""
    folder = tmp_path_factory.mktemp("labelled") / "shards"
    from_set(LocalFolder(tiny_world / "classification"), folder, split="train")
    return folder


@pytest.fixture
def tuned(tiny_run: MakeRun, tiny_world: Path, labelled: Path) -> MakeRun:
    """A fine-tuning run of four steps; takes settings on top."""

    def make(**changes: Any) -> RunConfig:
        settings: dict[str, Any] = {
            "name": "tuned",
            "data": {"shards": str(labelled)} | RECIPE,
            "tokenizer": {"name": "classes", "path": str(tiny_world / "classification/meta.json")},
            "objective": {"name": "fine_tuning"},
            "mask": {"name": "none"},
            "image_encoder": {"final_norm": False, "drop_path": 0.1},
            "training": {"length": {"steps": 4}},
            "optimizer": {"layer_decay": 0.65},
        }
        return tiny_run(**settings | changes)

    return make


def train(
    run: RunConfig, output: Path, machine: MachineConfig = IN_THIS_PROCESS, until: int | None = None
) -> dict[str, torch.Tensor]:
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    pretrain(resolve(run, machine), output, machine=machine, journal=journal, part=Part(until))
    return load_model(find_checkpoint(output), torch.device("cpu"))[0].state_dict()


def test_shards_of_a_set_have_its_images_and_the_names_of_their_classes(
    tiny_world: Path, labelled: Path
) -> None:
    data = EvaluationConfig(classification={"shapes": LocalFolder(tiny_world / "classification")}).sets[0]
    (test, learned) = data.tables
    names = json.loads((tiny_world / "classification/meta.json").read_text())["classes"]
    shards = ShardSet(labelled)
    assert list(verify(labelled)) == []
    assert [shards.image_bytes(i) for i in range(len(shards))] == list(learned.images())
    assert [shards.captions(i) for i in range(len(shards))] == [[names[k]] for k in learned.labels()]
    assert shards.distinct_captions() == sorted(names)
    assert test.num_rows == 10


def test_the_command_says_how_shards_are_used_and_refuses_in_one_line(
    tiny_world: Path, tmp_path: Path
) -> None:
    folder, output = tiny_world / "classification", tmp_path / "shards"
    made = CliRunner().invoke(main, ["data", "from-set", str(folder), "--split", "test", "-o", str(output)])
    assert made.exit_code == 0, made.output
    assert f"tokenizer.name=classes tokenizer.path={folder / 'meta.json'}" in made.stdout
    again = CliRunner().invoke(main, ["data", "from-set", str(folder), "-o", str(output)])
    none = CliRunner().invoke(main, ["data", "from-set", str(tmp_path), "-o", str(tmp_path / "new")])
    without = shutil.copytree(folder, tmp_path / "set")
    (without / "train.parquet").unlink()
    lost = CliRunner().invoke(main, ["data", "from-set", str(without), "-o", str(tmp_path / "new")])
    for refused, said in ((again, "exists already"), (none, "no such file"), (lost, "has no train images")):
        assert refused.exit_code != 0
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_an_encoder_is_tuned_resumed_to_the_bit_and_measured(
    tuned: MakeRun, tiny_run: MakeRun, tiny_world: Path, tmp_path: Path
) -> None:
    mae = tiny_run(objective=MAE, image_encoder={"positions": "sincos"})
    train(mae, tmp_path / "mae")
    run = tuned(init_from={"path": str(tmp_path / "mae")})
    whole = train(run, tmp_path / "whole")
    loading = MachineConfig(num_workers=0, loader_workers=2, checkpoints=CheckpointSettings(every_steps=1))
    train(run, tmp_path / "cut", loading, until=2)
    resumed = train(run, tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())

    sets = EvaluationConfig(
        classification={
            "shapes": LocalFolder(tiny_world / "classification"),
            "others": LocalFolder(_renamed(tiny_world, tmp_path)),
        },
        protocols={"classifier": Classifier(), "knn": KNN()},
    )
    measured = measure_checkpoint(find_checkpoint(tmp_path / "whole"), sets).metrics
    assert {"shapes/classifier/acc1", "shapes/classifier/acc5", "others/knn/acc1"} <= set(measured)
    assert not any(metric.startswith("others/classifier") for metric in measured)
    (line,) = [one for one in sets.refusals(run.objective, run.tokenizer) if "classifier" in one]
    assert line.startswith("classifier on others: 'no such class' is none of the 10 classes of ")
    alone = replace(sets, protocols={"classifier": Classifier()})
    with pytest.raises(ConfigError, match="classifier needs a classifier, and objective mae has none"):
        check_measured(alone, mae)


def _renamed(tiny_world: Path, folder: Path) -> Path:
    """The same set, with a class of another name."""
    copy = Path(shutil.copytree(tiny_world / "classification", folder / "others"))
    about = json.loads((copy / "meta.json").read_text())
    about["classes"][3] = "no such class"
    (copy / "meta.json").write_text(json.dumps(about))
    return copy


def test_what_cannot_be_tuned_is_refused_in_one_line(
    tuned: MakeRun, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused: list[tuple[str, Callable[[], Any]]] = [
        (
            "objective fine_tuning learns classes, and tokenizer clip_bpe reads words",
            lambda: tuned(tokenizer={"name": "clip_bpe"}),
        ),
        (
            r"data.shards: of the captions in .*, '0 blue squares', .* are none of the 10 classes",
            lambda: resolve(tuned(data={"shards": str(shards)}), IN_THIS_PROCESS),
        ),
        (
            "batch_size 6 gives each of 2 workers 3 images, and objective fine_tuning mixes them 2 at a time",
            lambda: resolve(
                tuned(training={"batch_size": 6, "length": {"steps": 4}}), MachineConfig(num_workers=2)
            ),
        ),
        (
            "no such file: .*none.txt",
            lambda: resolve(
                tuned(tokenizer={"name": "classes", "path": str(tmp_path / "none.txt")}), IN_THIS_PROCESS
            ),
        ),
    ]
    for message, start in refused:
        with pytest.raises(ConfigError, match=message) as error:
            start()
        assert "\n" not in str(error.value)
    train(tuned(), tmp_path / "scratch")
    assert "init_from names no weights: the image encoder learns from scratch" in capsys.readouterr().out
