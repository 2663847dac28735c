"""A second evaluation reads what the first one kept; large sets are encoded by workers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipelines.checkpoints.checkpoint import find_checkpoint
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.embed import embed, feature_folder, open_store
from pipelines.evaluation.evaluate import measure_checkpoint
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.checkpoint import MODEL
from vlp.data import image_tables
from vlp.evaluation.config import EvaluationConfig
from vlp.objectives.contrastive import Contrastive
from vlp.run import RunConfig
from vlp.shards.storage.local import LocalFolder


@pytest.fixture
def machine(tmp_path: Path) -> MachineConfig:
    return MachineConfig(num_workers=0, data_workers=0, storage=LocalFolder(tmp_path))


@pytest.fixture
def checkpoint(tiny_run: Callable[..., RunConfig], machine: MachineConfig, tmp_path: Path) -> Path:
    pretrain(
        tiny_run(training={"length": {"steps": 2}}),
        tmp_path / "run",
        machine=machine,
        journal=Journal(tmp_path),
    )
    return find_checkpoint(tmp_path / "run")


@pytest.fixture
def evaluation(tiny_world: Path) -> EvaluationConfig:
    return EvaluationConfig(
        retrieval={"scenes": LocalFolder(tiny_world / "retrieval.parquet")},
        classification={"shapes": LocalFolder(tiny_world / "classification")},
    )


def test_a_second_evaluation_asks_no_encoder(
    checkpoint: Path, evaluation: EvaluationConfig, machine: MachineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = feature_folder(machine)
    first = measure_checkpoint(checkpoint, evaluation, kept)

    def refuse(*_: object) -> None:
        raise AssertionError("an encoder is asked")

    for encoder in ("features", "encode_text"):
        monkeypatch.setattr(Contrastive, encoder, refuse)
    assert measure_checkpoint(checkpoint, evaluation, kept).metrics == first.metrics
    with pytest.raises(AssertionError, match="an encoder is asked"):
        measure_checkpoint(checkpoint, evaluation)
    others = {name: x + 1 for name, x in load_file(checkpoint / MODEL).items()}
    save_file(others, checkpoint / MODEL)
    assert open_store(checkpoint, kept).folder.names() == set()


def test_workers_encode_what_is_not_there_of_large_sets(
    checkpoint: Path,
    evaluation: EvaluationConfig,
    machine: MachineConfig,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    data_workers: int,
) -> None:
    machine = replace(machine, data_workers=data_workers)
    embed(checkpoint, evaluation, machine=machine)
    assert capsys.readouterr().out == ""  # all of them are small
    monkeypatch.setattr(image_tables, "PART_ROWS", 4)
    expected = measure_checkpoint(checkpoint, evaluation).metrics
    embed(checkpoint, evaluation, machine=machine)
    assert "encoding 38 images in 10 parts" in capsys.readouterr().out
    store = open_store(checkpoint, feature_folder(machine))
    parts = [part for data in evaluation.sets for table in data.tables for part in table.parts()]
    assert store.missing(parts) == []
    embed(checkpoint, evaluation, machine=machine)
    assert capsys.readouterr().out == ""
    assert measure_checkpoint(checkpoint, evaluation, feature_folder(machine)).metrics == expected
