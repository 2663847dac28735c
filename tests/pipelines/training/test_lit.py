"""LiT learns texts for an image encoder that was trained without them, and leaves it as it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.evaluate import measure_checkpoint
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.evaluation.config import EvaluationConfig
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.storage.local import LocalFolder

MakeRun = Callable[..., RunConfig]
MACHINE = MachineConfig(num_workers=0)
LIT = {"name": "lit", "embed_dim": 8, "text_encoder": {"width": 16, "depth": 1, "num_heads": 2}}


def train(run: RunConfig, output: Path) -> Objective:
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    pretrain(run, output, machine=MACHINE, journal=journal)
    return load_model(find_checkpoint(output), torch.device("cpu"))[0]


def test_a_superclass_encoder_gets_texts(tiny_run: MakeRun, tiny_world: Path, tmp_path: Path) -> None:
    first = train(tiny_run(objective={"name": "superclass"}), tmp_path / "first")
    run = tiny_run(objective=LIT, mask={"name": "none"}, init_from={"path": str(tmp_path / "first")})
    lit = train(run, tmp_path / "lit")
    encoder = first.image_encoder.state_dict()
    assert all(torch.equal(encoder[name], value) for name, value in lit.image_encoder.state_dict().items())
    sets = EvaluationConfig(
        retrieval={"scenes": LocalFolder(tiny_world / "retrieval.parquet")},
        classification={"shapes": LocalFolder(tiny_world / "classification")},
    )
    found = measure_checkpoint(find_checkpoint(tmp_path / "lit"), sets).metrics
    assert {"scenes/text_to_image/recall@1", "shapes/zero_shot/acc1"} <= set(found)


def test_it_needs_weights_of_an_image_encoder(tiny_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match=r"objective lit does not train .* by init_from\.path") as refused:
        tiny_run(objective=LIT)
    assert "\n" not in str(refused.value)
