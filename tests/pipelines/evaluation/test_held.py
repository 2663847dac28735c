"""What MLflow holds of a run can be measured, loaded and trained from, by its address."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import vlp
from pipelines.checkpoints.checkpoint import find_checkpoint
from pipelines.config.errors import UserError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.evaluation.evaluate import measure_checkpoint
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.held import held
from pipelines.tracking.journal import DELIVERED_NAME, Delivered, Journal
from pipelines.tracking.store import MlflowClient, Store
from pipelines.training.resolved import resolve
from tests.paths import REPOSITORY
from tests.pipelines.runs import pretrain
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.local import LocalFolder

FRESH_PROCESS = """
import json, mlflow, pandas, sys
mlflow.set_tracking_uri(sys.argv[1])
found = mlflow.search_logged_models(["1"], filter_string="name = 'run_1-step-3'", output_format="list")
model = mlflow.pyfunc.load_model(f"models:/{found[0].model_id}")
picture = open(sys.argv[2], "rb").read()
rows = pandas.DataFrame({"image": [picture] * 2, "text": ["a cat", "a dog"]})
example, names = model.input_example, model.metadata.signature.inputs.input_names()
answers = [model.predict(rows), model.predict(rows[["text"]]), len(model.predict(example)), names]
print(json.dumps(answers))
"""

MakeRun = Callable[..., RunConfig]


def deliver(journal: Journal, machine: MachineConfig) -> str:
    """Id of the run."""
    with Delivery(journal.folder.parent, tracking_uri=machine.mlflow_uri, experiment="tests") as delivery:
        assert delivery.flush(240) == 0
    return Delivered.load(journal.folder, machine.mlflow_uri).run_id


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> MachineConfig:
    """Every checkpoint is tracked."""
    settings = CheckpointSettings(every_steps=2, track="all")
    return MachineConfig(
        num_workers=0, storage=LocalFolder(tmp_path_factory.mktemp("results")), checkpoints=settings
    )


@pytest.fixture
def run_id(tiny_run: MakeRun, tiny_world: Path, machine: MachineConfig) -> str:
    """Of a run of three steps, which is measured after the second and the third."""
    journal = Journal(machine.work_folder / "journals" / "run")
    if not journal.folder.exists():
        journal.begin(name="run.1", tags={})
        sets = {"scenes": str(tiny_world / "retrieval.parquet")}
        run = tiny_run(evaluation={"every_steps": 2, "retrieval": sets})
        pretrain(run, machine.work_folder / "run", machine=machine, journal=journal)
        journal.end("FINISHED")
    return deliver(journal, machine)


def test_a_model_that_mlflow_holds_is_measured_as_the_original(
    run_id: str, machine: MachineConfig, tiny_world: Path
) -> None:
    client = MlflowClient(machine.mlflow_uri)
    outputs = client.get_run(run_id).outputs
    assert outputs is not None
    (_, last) = sorted(outputs.model_outputs, key=lambda model: model.step)
    store = Store(machine.mlflow_uri, "tests")
    assert store.register(store.run(run_id), "tiny", metric=None, alias="champion") == 1

    evaluation = EvaluationConfig(retrieval={"scenes": LocalFolder(tiny_world / "retrieval.parquet")})
    expected = measure_checkpoint(find_checkpoint(machine.work_folder / "run"), evaluation).metrics
    addresses = [f"runs:/{run_id}", f"runs:/{run_id}/3", f"models:/{last.model_id}", "models:/tiny/1"]
    for address in [*addresses, "models:/tiny@champion"]:
        fetched = find_checkpoint(held(Path(address), machine))
        assert not (fetched / "training.pt").exists()
        assert measure_checkpoint(fetched, evaluation).metrics == expected
        (fetched / MANIFEST).unlink()  # as of a run that was tracked before it was kept there
        assert measure_checkpoint(fetched, evaluation).metrics == expected
    for unknown in ("runs:/nothing", f"runs:/{run_id}/9", "models:/nothing/1", "models:/tiny@nobody"):
        with pytest.raises(
            UserError, match=r"^checkpoint: .* does not give .*machine\.tracking_uri$"
        ) as refused:
            held(Path(unknown), machine)
        assert "\n" not in str(refused.value)


def test_every_checkpoint_is_a_model_with_its_metrics(run_id: str, machine: MachineConfig) -> None:
    """Once, however often it is delivered; with the very points that the charts of its run have."""
    note = machine.work_folder / "journals" / "run" / DELIVERED_NAME
    note.unlink()
    deliver(Journal(note.parent), machine)
    client = MlflowClient(machine.mlflow_uri)
    run = client.get_run(run_id)
    models = client.search_logged_models(
        [run.info.experiment_id], order_by=[{"field_name": "name", "ascending": True}]
    )
    assert [(model.name, model.source_run_id) for model in models] == [
        ("run_1-step-2", run_id),
        ("run_1-step-3", run_id),
    ]
    key = "val/scenes/text_to_image/recall_at_1"
    points = {point.step: point.value for point in client.get_metric_history(run_id, key)}
    assert sorted(points) == [2, 3]
    assert len(client.get_metric_history(run_id, key)) == 2
    for model in models:
        assert model.metrics is not None
        (metric,) = [metric for metric in model.metrics if metric.key == key]
        assert metric.value == points[metric.step]


def test_a_fresh_process_loads_a_model_with_mlflow_alone(
    run_id: str, machine: MachineConfig, tmp_path: Path
) -> None:
    picture, stream = tmp_path / "cat.png", io.BytesIO()
    Image.new("RGB", (40, 50), (200, 30, 20)).save(stream, "PNG")
    picture.write_bytes(stream.getvalue())
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, machine.mlflow_uri, str(picture)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    both, texts, num_examples, names = json.loads(done.stdout.splitlines()[-1])
    model = vlp.load(machine.work_folder / "run")
    images = model.encode_image(model.preprocess(stream.getvalue())[None])
    expected = model.encode_text(*model.tokenize(["a cat", "a dog"]))
    assert torch.tensor([row["image_embedding"] for row in both]).allclose(images.expand(2, -1), atol=1e-5)
    assert torch.tensor([row["text_embedding"] for row in both]).allclose(expected, atol=1e-5)
    assert [list(row) for row in texts] == 2 * [["text_embedding"]]
    assert (num_examples, names) == (1, ["image", "text"])


def test_a_run_starts_from_a_model_that_mlflow_holds(
    run_id: str, machine: MachineConfig, tiny_run: MakeRun
) -> None:
    named, plain = (
        fresh_objective_from(tiny_run(init_from={"path": path}), machine)
        for path in (f"runs:/{run_id}", str(machine.work_folder / "run"))
    )
    assert all(torch.equal(one, plain[name]) for name, one in named.items())


def fresh_objective_from(run: RunConfig, machine: MachineConfig) -> dict[str, torch.Tensor]:
    return resolve(run, machine).build().state_dict()


def test_a_folder_is_no_address(tmp_path: Path) -> None:
    assert held(tmp_path / "models", MachineConfig()) == tmp_path / "models"
