import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from pipelines.tracking.database import is_whole
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.journal import DELIVERED_NAME, Delivered, Journal
from pipelines.tracking.store import MlflowClient, entities
from tests.paths import REPOSITORY
from tests.waiting import wait_until
from vlp.shards.storage.lock import locked

EXPERIMENT = "tests"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, because it takes MLflow seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path) -> str:
    (tmp_path / "store").mkdir()
    shutil.copy(empty_database, tmp_path / "store/mlflow.db")
    return f"sqlite:///{tmp_path}/store/mlflow.db"


def begin(folder: Path, **settings) -> Journal:
    journal = Journal(folder)
    journal.begin(name=folder.name, tags={}, **settings)
    return journal


def deliver(root: Path, uri: str) -> None:
    with Delivery(root, tracking_uri=uri, experiment=EXPERIMENT, poll_seconds=0.05) as delivery:
        assert delivery.flush(120) == 0


def runs(uri: str) -> dict[str, entities.Run]:
    """By name, which must be unique."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    by_name = {str(run.info.run_name): run for run in found}
    assert len(found) == len(by_name)
    return by_name


def history(uri: str, run: entities.Run, key: str) -> list[tuple[int, float]]:
    metrics = MlflowClient(uri).get_metric_history(run.info.run_id, key)
    return sorted((metric.step, metric.value) for metric in metrics)


def artifacts(uri: str, run: entities.Run, folder: str | None = None) -> list[str]:
    return [file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id, folder)]


def test_everything_arrives(tmp_path: Path, uri: str):
    journal = begin(tmp_path / "runs/a")
    journal.params({f"key.{i}": i for i in range(150)} | {"long": "x" * 9000})
    journal.metrics({"image_to_text/recall@1": 0.5, "../odd // key?": 1.0})
    journal.metrics({f"metric_{i}": i for i in range(1500)}, step=7)
    journal.tags({"host": "h" * 9000})
    (journal.folder / "masks").mkdir()
    (journal.folder / "masks/0.png").touch()
    journal.artifact(journal.folder / "masks", folder="pictures")
    journal.artifact(journal.folder / "journal.jsonl")  # its copy in the store is not a run
    journal.dataset(name="shards", digest="d" * 64, source="/shards", context="training", profile={"n": 1})
    journal.end("FAILED")
    deliver(tmp_path, uri)

    run = runs(uri)["a"]
    assert run.info.status == "FAILED"
    assert run.data.params == {f"key.{i}": str(i) for i in range(150)} | {"long": "x" * 6000}
    assert run.data.metrics["image_to_text/recall_at_1"] == 0.5
    assert run.data.metrics["odd / key_"] == 1.0
    assert [run.data.metrics[f"metric_{i}"] for i in range(1500)] == list(range(1500))
    assert run.data.tags["host"] == "h" * 8000
    assert artifacts(uri, run) == ["journal.jsonl", "pictures"]
    assert artifacts(uri, run, "pictures/masks") == ["pictures/masks/0.png"]
    assert (tmp_path / "store/mlartifacts").is_dir()
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("shards", "d" * 36)


def test_a_child_found_before_its_parent_is_nested(tmp_path: Path, uri: str):
    parent = tmp_path / "runs/z"
    child = begin(tmp_path / "runs/a", parent=parent)
    Journal(parent).folder.mkdir()
    begin(child.folder / "grandchild", parent=child.folder)
    begin(parent)
    deliver(tmp_path, uri)
    found = runs(uri)
    assert found["a"].data.tags["mlflow.parentRunId"] == found["z"].info.run_id
    assert found["grandchild"].data.tags["mlflow.parentRunId"] == found["a"].info.run_id


def test_steps_that_a_resumed_run_repeats_count_once(tmp_path: Path, uri: str):
    journal = begin(tmp_path / "runs/a")
    for step in range(6):
        journal.metrics({"loss": step}, step=step)
    journal.end("FAILED")
    deliver(tmp_path, uri)
    first = runs(uri)["a"]

    journal.begin(name="a", tags={"attempt": "2"})
    for step in range(4, 9):
        journal.metrics({"loss": step + 100}, step=step)
    deliver(tmp_path, uri)
    second = runs(uri)["a"]
    assert second.info.run_id == first.info.run_id
    assert (first.info.status, second.info.status) == ("FAILED", "RUNNING")
    assert second.data.tags["attempt"] == "2"
    assert history(uri, second, "loss") == [(s, s) for s in range(6)] + [(s, s + 100) for s in range(6, 9)]


def test_a_rejected_record_is_reported_and_blocks_nothing(
    tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
):
    journal = begin(tmp_path / "runs/a")
    picture = journal.folder / "gone.png"
    picture.touch()
    journal.artifact(picture)
    picture.unlink()
    journal.params({"lr": 0.1, "seed": 1})
    journal.params({"lr": 0.2, "seed": 1, "new": 2})
    journal.metrics({"loss": 1.0})
    deliver(tmp_path, uri)
    run = runs(uri)["a"]
    assert run.data.params == {"lr": "0.1", "seed": "1", "new": "2"}
    assert run.data.tags["now.lr"] == "0.2"
    assert run.data.metrics == {"loss": 1.0}
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert "skipped 1 record(s)" in errors
    assert "gone.png" in errors


def test_a_record_torn_by_a_kill_is_skipped(tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]):
    journal = begin(tmp_path / "runs/a")
    with (journal.folder / "journal.jsonl").open("a") as file:
        file.write('{"kind": "metr')
    deliver(tmp_path, uri)
    assert capsys.readouterr().err == ""
    journal.metrics({"loss": 1.0})
    deliver(tmp_path, uri)
    assert runs(uri)["a"].data.metrics == {"loss": 1.0}
    assert "killed in the middle of the line" in capsys.readouterr().err


def test_delivering_again_changes_nothing(tmp_path: Path, uri: str):
    """As after a kill between the request and the note of it."""
    journal = begin(tmp_path / "runs/a")
    journal.params({"lr": 0.1})
    for step in range(300):
        journal.metrics({"loss": step, "bad": float("nan")}, step=step)
    deliver(tmp_path, uri)
    (journal.folder / DELIVERED_NAME).unlink()
    deliver(tmp_path, uri)
    run = runs(uri)["a"]
    assert history(uri, run, "loss") == [(step, step) for step in range(300)]
    assert len(history(uri, run, "bad")) == 300


def test_a_killed_delivery_is_continued_exactly_once(tmp_path: Path, uri: str):
    journal = begin(tmp_path / "runs/a")
    for step in range(6000):
        journal.metrics({"loss": step}, step=step)
    code = (
        "import sys; from pathlib import Path; from pipelines.tracking.delivery import Delivery\n"
        f"with Delivery(Path(sys.argv[1]), tracking_uri=sys.argv[2], experiment={EXPERIMENT!r}): pass"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), uri], cwd=REPOSITORY)
    while Delivered.load(journal.folder, uri).offset == 0:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert any(journal.read(Delivered.load(journal.folder, uri).offset))
    deliver(tmp_path, uri)
    assert history(uri, runs(uri)["a"], "loss") == [(step, step) for step in range(6000)]


def test_two_deliveries_of_a_root_take_turns(tmp_path: Path, uri: str):
    def delivery() -> Delivery:
        return Delivery(tmp_path, tracking_uri=uri, experiment=EXPERIMENT, poll_seconds=0.05)

    journal = begin(tmp_path / "runs/a")
    with delivery() as second:
        with delivery() as first:
            journal.metrics({"loss": 1.0}, step=1)
            assert first.flush(20) == second.flush(20) == 0
        journal.metrics({"loss": 2.0}, step=2)
        assert second.flush(20) == 0
    assert history(uri, runs(uri)["a"], "loss") == [(1, 1.0), (2, 2.0)]


def test_an_emptied_store_is_filled_again(tmp_path: Path, uri: str, empty_database: Path):
    parent = begin(tmp_path / "runs/a")
    begin(tmp_path / "runs/a/child", parent=parent.folder).metrics({"loss": 1.0})
    deliver(tmp_path, uri)
    shutil.copy(empty_database, tmp_path / "store/mlflow.db")
    Journal(tmp_path / "runs/a/child").metrics({"loss": 2.0}, step=1)
    begin(tmp_path / "runs/a/new", parent=parent.folder)
    deliver(tmp_path, uri)
    found = runs(uri)
    assert history(uri, found["child"], "loss") == [(0, 1.0), (1, 2.0)]
    assert {found[name].data.tags["mlflow.parentRunId"] for name in ("child", "new")} == {
        found["a"].info.run_id
    }


def test_records_wait_for_a_server_that_is_never_there(
    tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
):
    begin(tmp_path / "runs/a").metrics({"loss": 1.0})
    dead = "http://127.0.0.1:9"  # the discard service, which nobody runs
    with Delivery(tmp_path, tracking_uri=dead, experiment=EXPERIMENT, flush_seconds=0.5):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"cannot deliver to {dead} now" in lines[0]
    assert f"2 records wait in {tmp_path}" in lines[1]
    deliver(tmp_path, uri)
    assert runs(uri)["a"].data.metrics == {"loss": 1.0}


def test_another_machine_says_nothing_again_of_what_was_lost_with_the_first(tmp_path: Path, uri: str):
    """The journal came to it up to some step, and the steps after that are made again."""
    first, second = tmp_path / "first/a", tmp_path / "second/a"
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")

    def work(journal: Journal, steps: range) -> None:
        for step in steps:
            journal.metrics({"loss": 1 / step}, step=step)
            journal.image("masks", tmp_path / "picture.png", step=step)

    journal = begin(first)
    work(journal, range(1, 3))
    shutil.copytree(first, second)
    work(journal, range(3, 6))
    deliver(first, uri)
    time.sleep(0.002)  # as MLflow takes none of the same time twice
    work(Journal(second), range(3, 8))
    deliver(second, uri)
    (run,) = runs(uri).values()
    assert history(uri, run, "loss") == [(step, 1 / step) for step in range(1, 8)]
    names = [Path(file.path).name for file in MlflowClient(uri).list_artifacts(run.info.run_id, "images")]
    drawn = [name.partition("timestamp")[0] for name in names if name.endswith(".webp")]
    assert sorted(drawn) == [f"masks+step+{step}+" for step in range(1, 8)]


def test_the_end_waits_for_a_slow_server_as_long_as_it_takes_records(tmp_path: Path):
    """Which another process delivers here, one record after another."""
    journal = begin(tmp_path / "a")
    for step in range(8):
        journal.metrics({"loss": 1.0}, step=step)
    slow, patience = "http://127.0.0.1:9", 1.0

    def deliver_slowly() -> None:
        for record in journal.read():
            time.sleep(patience / 5)
            Delivered(slow, offset=record.end).save(journal.folder)

    with locked(tmp_path / ".delivery.lock"):
        delivery = Delivery(tmp_path, tracking_uri=slow, experiment=EXPERIMENT)
        thread = threading.Thread(target=deliver_slowly)
        thread.start()
        assert delivery.flush(patience) == 0
        thread.join()
        journal.end("FINISHED")
        assert delivery.flush(patience) == 1


def test_a_kill_while_the_database_is_made_leaves_none(tmp_path: Path):
    """The next delivery makes it, and cleans up."""
    database = tmp_path / "store/mlflow.db"
    begin(tmp_path / "runs/a").metrics({"loss": 1.0})
    code = (
        "import sys; from pathlib import Path; from pipelines.tracking.store import make_database\n"
        "make_database(Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(database)], cwd=REPOSITORY)
    wait_until(lambda: any(file.stat().st_size for file in database.parent.glob("mlflow.db.tmp/*")))
    process.kill()
    process.wait()
    assert not database.exists()
    uri = f"sqlite:///{database}"
    deliver(tmp_path, uri)
    assert runs(uri)["a"].data.metrics == {"loss": 1.0}
    assert list(database.parent.glob("*.tmp*")) == []


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from pipelines.tracking.delivery import Delivery, load_store
from pipelines.tracking.journal import Journal

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow.tracking":  # MLflow has begun to load
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
sys.meta_path.insert(0, Interrupts())
try:
    load_store()
except KeyboardInterrupt:
    print("interrupted", flush=True)
journal = Journal(Path("journals/run"))
journal.begin(name="run", tags={})
journal.end("KILLED")
with Delivery(Path("journals"), tracking_uri="sqlite:///mlflow.db", experiment="tests") as delivery:
    print("waiting:", delivery.flush(60), flush=True)
"""


def test_an_interruption_while_mlflow_is_loaded_keeps_nothing_from_being_delivered(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert (said[0], said[-1], done.returncode) == ("interrupted", "waiting: 0", 0), done.stderr


@pytest.mark.parametrize("damage", ["half made", "no database", "empty"])
def test_a_broken_database_is_set_aside_and_its_records_delivered_anew(
    tmp_path: Path, uri: str, damage: str, capsys: pytest.CaptureFixture[str]
):
    journal = begin(tmp_path / "runs/a")
    journal.metrics({"loss": 1.0})
    *_, last = journal.read()
    Delivered(uri, "of the broken one", last.end, {"loss": 0}).save(journal.folder)
    database = tmp_path / "store/mlflow.db"
    database.unlink()
    if damage == "half made":
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    else:
        database.write_bytes(b"no database" if damage == "no database" else b"")
    broken = database.read_bytes()
    with Delivery(tmp_path, tracking_uri=uri, experiment=EXPERIMENT):
        wait_until(lambda: Delivered.load(journal.folder, uri).run_id != "of the broken one", seconds=240)
    assert history(uri, runs(uri)["a"], "loss") == [(0, 1.0)]
    (line,) = capsys.readouterr().err.splitlines()
    assert str(database) in line
    (aside,) = database.parent.glob("mlflow.db.broken-*")
    assert aside.name in line
    assert aside.read_bytes() == broken


def test_a_database_that_is_busy_is_left_alone(tmp_path: Path, uri: str):
    database = tmp_path / "store/mlflow.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert is_whole(database)


def test_the_duration_is_that_of_the_work(tmp_path: Path, uri: str):
    journal = begin(tmp_path / "runs/a")
    journal.end("FINISHED")
    time.sleep(1.0)
    journal.begin(name="a", tags={})
    journal.metrics({"loss": 1.0})
    journal.end("FINISHED")
    deliver(tmp_path, uri)
    info = runs(uri)["a"].info
    assert info.end_time is not None
    assert info.end_time - info.start_time < 900


def test_a_description_links_to_the_runs_that_it_names(tmp_path: Path, uri: str):
    """Also to those that are delivered after it; one that is gone is named without a link."""
    parent, child, gone = (tmp_path / "runs" / name for name in ("a", "b", "gone"))
    journal = begin(parent)
    begin(child, parent=parent)
    journal.describe("| [b] | [gone] |", runs={"b": child, "gone": gone}, columns=["val/recall@1"])
    journal.metrics({"after": 1.0})
    deliver(tmp_path, uri)
    found = runs(uri)
    info = found["b"].info
    note = found["a"].data.tags["mlflow.note.content"]
    page = f"#/experiments/{info.experiment_id}/runs"
    assert f"[b]: {page}/{info.run_id}?workflowType=machine_learning\n" in note
    assert "[gone]:" not in note
    assert f"[all runs]: {page}?workflowType=machine_learning" in note
    assert found["a"].data.metrics == {"after": 1.0}
    tags = MlflowClient(uri).get_experiment(info.experiment_id).tags
    assert "metrics.`val/recall_at_1`" in json.loads(tags["mlflow.sharedViewState.vlp"])["selectedColumns"]


def test_a_picture_has_its_step_and_is_delivered_once(tmp_path: Path, uri: str):
    journal = begin(tmp_path / "runs/a")
    for step in (10, 20):
        Image.new("RGB", (8, 8)).save(journal.folder / f"{step}.png")
        journal.image("view/masks", journal.folder / f"{step}.png", step=step)
    deliver(tmp_path, uri)
    (journal.folder / DELIVERED_NAME).unlink()  # as after a kill between the request and the note of it
    deliver(tmp_path, uri)
    pictures = [name for name in artifacts(uri, runs(uri)["a"], "images") if name.endswith(".png")]
    assert [re.findall("view.masks.step.([0-9]+).", name) for name in sorted(pictures)] == [["10"], ["20"]]
