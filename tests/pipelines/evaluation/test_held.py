"""What MLflow holds of a run can be measured, by its address."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.checkpoints.checkpoint import find_checkpoint
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.evaluation.evaluate import measure_checkpoint
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.held import held
from pipelines.tracking.journal import Delivered, Journal
from pipelines.tracking.store import MlflowClient
from tests.pipelines.runs import pretrain
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST


def test_a_checkpoint_that_mlflow_holds_is_measured_as_the_original(
    tiny_run: Callable[..., RunConfig], tiny_world: Path, tmp_path: Path
) -> None:
    machine = MachineConfig(num_workers=0, storage=tmp_path / "results")
    journal = Journal(tmp_path / "journals" / "run")
    journal.begin(name="run", tags={})
    pretrain(tiny_run(), tmp_path / "run", machine=machine, journal=journal)
    journal.end("FINISHED")
    with Delivery(tmp_path / "journals", tracking_uri=machine.mlflow_uri, experiment="tests") as delivery:
        assert delivery.flush(120) == 0
    run_id = Delivered.load(journal.folder, machine.mlflow_uri).run_id
    original = find_checkpoint(tmp_path / "run")
    client = MlflowClient(machine.mlflow_uri)
    client.create_registered_model("tiny")
    source = f"{client.get_run(run_id).info.artifact_uri}/checkpoints/{original.name}"
    client.create_model_version("tiny", source)
    client.set_registered_model_alias("tiny", "best", "1")

    evaluation = EvaluationConfig(retrieval={"scenes": tiny_world / "retrieval.parquet"})
    expected = measure_checkpoint(original, evaluation)
    addresses = [f"runs:/{run_id}", f"runs:/{run_id}/checkpoints/{original.name}", "models:/tiny/1"]
    for address in [*addresses, "models:/tiny@best"]:
        fetched = find_checkpoint(held(Path(address), machine))
        assert not (fetched / "training.pt").exists()
        assert measure_checkpoint(fetched, evaluation) == expected
        (fetched / MANIFEST).unlink()  # as of a run that was tracked before it was kept there
        assert measure_checkpoint(fetched, evaluation) == expected
    for unknown in ("runs:/nothing", f"runs:/{run_id}/nothing", "models:/nothing/1", "models:/tiny@nobody"):
        with pytest.raises(
            UserError, match=r"^checkpoint: .* does not give .*machine\.tracking_uri$"
        ) as refused:
            held(Path(unknown), machine)
        assert "\n" not in str(refused.value)


def test_a_folder_is_no_address(tmp_path: Path) -> None:
    assert held(tmp_path / "models", MachineConfig()) == tmp_path / "models"
