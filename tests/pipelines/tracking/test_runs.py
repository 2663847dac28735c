"""Runs that MLflow holds, read back: as a table, against each other, to their origin, into the registry."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from pipelines.commands.main import main
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.journal import Journal

METRICS = ("val/x/recall@1", "val/x/median_rank", "val/loss")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names a store of two trainings on what two other runs have made."""
    folder = tmp_path_factory.mktemp("results")
    runs = {
        "download": ({"output": "/data/shards", "url_list": "/data/urls.csv"}, {}, {}),
        "docfreq": ({"output": "/data/df", "shards": "/data/shards"}, {}, {}),
        "clip": ({"lr": 0.1, "seed": 0}, {"train/loss": 3.0, "val/x/recall@1": 0.25}, {"mask": "none"}),
        "flip": ({"lr": 0.2, "seed": 0}, {"train/loss": 2.0}, {"mask": "random"}),
    }
    table = {"data.shards": "/data/shards", "data.document_frequency": "/data/df/document_frequency.parquet"}
    for name, (params, metrics, tags) in runs.items():
        journal = Journal(folder / "journals" / name)
        journal.begin(name=name, tags=tags)
        journal.params(params | (table if tags else {}))
        journal.metrics(metrics, step=2)
        journal.end("FINISHED")
    track_models(folder / "journals" / "ranked")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with Delivery(folder / "journals", tracking_uri=uri, experiment="tests") as delivery:
        assert delivery.flush(240) == 0
    return f"machine.storage={folder}"


def track_models(folder: Path) -> None:
    """A run that gets better with its steps, and of which all numbers grow but one."""
    journal = Journal(folder)
    journal.begin(name="ranked", tags={})
    for step, metrics in {2: (0.1, 9.0, 3.0), 4: (0.3, 5.0, 2.0), 6: (0.2, 7.0, 2.5)}.items():
        weights = folder / f"step_{step}"
        weights.mkdir()
        (weights / "model.safetensors").write_bytes(b"weights")
        journal.metrics(dict(zip(METRICS, metrics, strict=True)), step=step)
        journal.model(weights, files=["model.safetensors"], step=step, texts=False)
    journal.end("FINISHED")


def vlp(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["runs", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_runs_are_listed_by_filters_of_mlflow(machine: str) -> None:
    everything = vlp(machine)
    assert all(name in everything for name in ("clip", "flip", "download", "finished", "random"))
    found = vlp(
        machine, "--where", "metrics.`train/loss` < 2.5 and tags.mask = 'random'", "--metric", "train/loss"
    )
    assert "flip" in found
    assert "clip" not in found
    assert " 2 " in found
    assert "no runs" in vlp(machine, "--experiment", "another")


def test_a_comparison_has_what_differs_alone(machine: str) -> None:
    lines = [line.split() for line in vlp("compare", "clip", "flip", machine).splitlines()]
    assert [words for words in lines if len(words) == 3] == [
        ["lr", "0.1", "0.2"],
        ["train/loss", "3", "2"],
        ["val/x/recall_at_1", "0.25", "-"],
    ]


@pytest.mark.parametrize("metric", [None, *METRICS])
def test_the_best_model_is_that_of_the_least_loss_and_rank(machine: str, metric: str | None) -> None:
    name = "last" if metric is None else metric.replace("/", "_").replace("@", "_")
    said = vlp("register", "ranked", name, machine, *([] if metric is None else ["--metric", metric]))
    assert said == f"models:/{name}/1 is models:/{name}@champion\n"
    client = MlflowClient(f"sqlite:///{machine.removeprefix('machine.storage=')}/mlflow.db")
    place = str(client.get_model_version_by_alias(name, "champion").source)
    model = client.get_logged_model(place.removeprefix("models:/"))
    assert model.tags["step"] == ("6" if metric is None else "4")


def test_a_run_leads_to_its_url_list(machine: str) -> None:
    said = vlp("lineage", "flip", machine)
    assert [line.strip().split(" (")[0] for line in said.splitlines()] == [
        "run flip",
        "shards: run download",
        "URL list: /data/urls.csv",
        "document frequencies: run docfreq",
        "shards: run download",
        "URL list: /data/urls.csv",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["compare", "clip", "flop"], "no run is named flop"),
        (["--where", "tags.mask ="], "correct --where"),
        (["register", "clip", "best"], "clip has no model; set machine.checkpoints.track"),
        (["mask.name=random"], "mask is not a setting of this command"),
    ],
)
def test_a_mistake_is_one_line(machine: str, arguments: list[str], reason: str) -> None:
    result = CliRunner().invoke(main, ["runs", *arguments, machine])
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
