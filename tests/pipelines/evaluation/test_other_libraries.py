"""Folders of other libraries are measured, and begun from, like checkpoints of ours."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model, steps_done
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.evaluate import measure_checkpoint
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import fresh_objective, pretrain, run_identity
from vlp.evaluation.config import EvaluationConfig
from vlp.export import export
from vlp.model import Model
from vlp.run import RunConfig
from vlp.shards.storage.local import LocalFolder

MakeRun = Callable[..., RunConfig]
CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(tiny_run: MakeRun, tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal")
    journal.begin(name="run", tags={})
    pretrain(tiny_run(), tmp_path / "run", machine=MachineConfig(num_workers=0), journal=journal)
    return find_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("format", ["open_clip", "huggingface", "safetensors"])
def test_a_model_is_measured_alike_in_every_folder(
    format: str, checkpoint: Path, tiny_world: Path, tmp_path: Path
) -> None:
    export(Model(*load_model(checkpoint, CPU)), tmp_path / "theirs", format=format)
    folder = find_checkpoint(tmp_path / "theirs")
    sets = EvaluationConfig(
        retrieval={"dev": LocalFolder(tiny_world / "retrieval.parquet")},
        classification={"shapes": LocalFolder(tiny_world / "classification")},
    )
    expected = measure_checkpoint(checkpoint, sets).metrics
    assert measure_checkpoint(folder, sets).metrics == pytest.approx(expected, abs=1e-6)
    assert steps_done(folder) == (3 if format == "safetensors" else 0)


def test_a_run_begins_from_a_folder_that_says_itself_whose_it_is(
    checkpoint: Path, tiny_run: MakeRun, tmp_path: Path
) -> None:
    trained, _ = load_model(checkpoint, CPU)
    images = torch.randn(2, 3, 32, 32)
    for format in ("open_clip", "timm", "huggingface", "safetensors"):
        folder = tmp_path / format
        export(Model(trained, tiny_run()), folder, format=format)
        source = {"path": str(folder)}
        with torch.inference_mode():
            found = fresh_objective(tiny_run(init_from=source)).eval().features(images)
            torch.testing.assert_close(found, trained.features(images), atol=1e-5, rtol=1e-5)
        named = source | {"format": "vlp" if format == "safetensors" else format}
        assert run_identity(tiny_run(init_from=source)) == run_identity(tiny_run(init_from=named))


def test_a_file_has_to_be_told_whose_it_is(checkpoint: Path, tiny_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="is a file, which does not say whose names"):
        run_identity(tiny_run(init_from={"path": str(checkpoint / "model.safetensors")}))
