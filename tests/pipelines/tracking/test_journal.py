import math
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.tracking.journal import DELIVERED_NAME, FILE_NAME, Delivered, Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "run")
    journal.begin(name="run", tags={})
    return journal


def kinds(journal: Journal) -> list[str]:
    return [record.kind for record in journal.read()]


def test_numbers_survive_that_json_does_not_know(journal: Journal):
    journal.metrics({"nan": math.nan, "inf": math.inf, "minus": -math.inf}, step=3)
    metrics = list(journal.read())[-1].fields["metrics"]
    assert math.isnan(metrics["nan"])
    assert (metrics["inf"], metrics["minus"]) == (math.inf, -math.inf)


def test_params_of_any_type_are_text(journal: Journal):
    journal.params({"mask.ratio": 0.5, "path": Path("a"), "none": None, "sizes": (1, 2)})
    params = list(journal.read())[-1].fields["params"]
    assert params == {"mask.ratio": "0.5", "path": "a", "none": "None", "sizes": "(1, 2)"}


def test_a_resumed_run_keeps_its_identity(journal: Journal):
    first = journal.first("begin")
    journal.begin(name="another", tags={"attempt": "2"})
    assert journal.first("begin") == first
    assert kinds(journal) == ["begin", "resumed"]


def test_an_unfinished_record_waits_for_its_newline(journal: Journal):
    whole = list(journal.read())
    with (journal.folder / FILE_NAME).open("a") as file:
        file.write('{"kind": "metrics", "time": 1')
        file.flush()
        assert list(journal.read()) == whole
        file.write(', "metrics": {"loss": 1.0}, "step": 1}\n')
    assert kinds(journal) == ["begin", "metrics"]


def test_a_writer_after_a_killed_one_starts_a_new_line(journal: Journal):
    with (journal.folder / FILE_NAME).open("a") as file:
        file.write('{"kind": "metrics", "ti')
    journal.metrics({"loss": 1.0}, step=1)
    assert kinds(journal) == ["begin", "unreadable", "metrics"]


def test_reading_goes_on_from_any_record(journal: Journal):
    for step in range(3):
        journal.metrics({"loss": 1.0}, step=step)
    records = list(journal.read())
    for index, record in enumerate(records):
        assert list(journal.read(record.end)) == records[index + 1 :]


def append_many(journal: Journal, writer: int) -> None:
    for step in range(200):
        journal.metrics({f"writer_{writer}": step, "padding_" * 1000: 0.0}, step=step)


def test_processes_append_side_by_side(journal: Journal):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(journal, writer)) for writer in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert kinds(journal) == ["begin"] + 600 * ["metrics"]
    for writer in range(3):
        key = f"writer_{writer}"
        steps = [r.fields["metrics"][key] for r in journal.read() if key in r.fields.get("metrics", {})]
        assert steps == list(range(200))


def test_a_pickled_journal_is_the_same_journal(journal: Journal):
    pickle.loads(pickle.dumps(journal)).tags({"from": "a worker"})
    assert kinds(journal) == ["begin", "tags"]


def test_an_artifact_must_exist(journal: Journal):
    with pytest.raises(FileNotFoundError, match="no such artifact"):
        journal.artifact(journal.folder / "missing.png")


def test_a_tree_of_runs_may_move(tmp_path: Path):
    parent, child = Journal(tmp_path / "old/parent"), Journal(tmp_path / "old/parent/child")
    parent.begin(name="parent", tags={})
    child.begin(name="child", parent=parent.folder, tags={})
    (child.folder / "mask.png").touch()
    child.artifact(child.folder / "mask.png")
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = Journal(tmp_path / "new/parent/child")
    begin, artifact = moved.read()
    assert moved.locate(begin.fields["parent"]) == tmp_path / "new/parent"
    assert moved.locate(artifact.fields["path"]) == moved.folder / "mask.png"


def test_what_is_delivered_counts_for_one_server_only(tmp_path: Path):
    delivered = Delivered("http://a", run_id="1", offset=10, last_step={"loss": 3})
    delivered.save(tmp_path)
    assert Delivered.load(tmp_path, "http://a") == delivered
    assert Delivered.load(tmp_path, "http://b") == Delivered("http://b")


def test_a_damaged_note_of_what_is_delivered_is_none(tmp_path: Path):
    (tmp_path / DELIVERED_NAME).write_text("")
    assert Delivered.load(tmp_path, "http://a") == Delivered("http://a")


def test_writing_needs_neither_mlflow_nor_ray():
    modules = "pipelines.tracking.journal, pipelines.tracking.delivery"
    code = f"import sys, {modules}; assert not {{'mlflow', 'ray'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
