"""A stage is done once; one that failed goes on in its folder; other inputs make another stage."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.tracking.journal import Journal
from pipelines.workflow.stages import Stages
from vlp.shards.manifest import Manifest


@dataclass(frozen=True)
class Settings:
    value: int = 1


@dataclass(frozen=True, kw_only=True)
class Counted(Manifest):
    calls: int


class Work:
    """Leaves a file per call, and fails as often as it is told to."""

    def __init__(self, failures: int = 0, error: type[BaseException] = RuntimeError) -> None:
        self.calls: list[Path] = []
        self.failures, self.error = failures, error

    def __call__(self, output: Path, *, journal: Journal) -> Counted:
        self.calls.append(output)
        (output / f"call_{len(self.calls)}").touch()
        journal.metrics({"calls": len(self.calls)})
        if len(self.calls) <= self.failures:
            raise self.error("injected")
        return Counted(digest="d", calls=len(self.calls))


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    journal = Journal(tmp_path / "journals" / "pipeline")
    journal.begin(name="pipeline", tags={})
    return Stages(tmp_path / "results", journal)


def story(journal: Journal) -> list[str]:
    """What a stage's record tells of its beginnings and ends."""
    kinds = ("begin", "resumed", "end")
    return [record.fields.get("status", record.kind) for record in journal.read() if record.kind in kinds]


def test_an_unchanged_stage_is_not_run_again(stages: Stages) -> None:
    work = Work()
    first = stages.run("a", work, Counted, settings=Settings(), identity="x")
    again = stages.run("a", work, Counted, settings=Settings(), identity="x")
    assert len(work.calls) == 1
    assert again == first
    assert story(again.journal) == ["begin", "FINISHED"]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stage_that_was_cut_goes_on_in_its_folder_and_its_record(
    stages: Stages, error: type[BaseException], status: str
) -> None:
    work = Work(failures=1, error=error)
    with pytest.raises(error, match="injected"):
        stages.run("a", work, Counted, settings=Settings(), identity="x")
    done = stages.run("a", work, Counted, settings=Settings(), identity="x")
    assert work.calls[0] == work.calls[1] == done.folder
    assert {"call_1", "call_2"} <= {file.name for file in done.folder.iterdir()}
    assert story(done.journal) == ["begin", status, "resumed", "FINISHED"]
    assert done.manifest.calls == 2


def test_another_identity_or_name_is_another_folder_and_the_old_one_stays(stages: Stages) -> None:
    work = Work()
    names = [("a", "x"), ("a", "y"), ("b", "x"), ("a", {"k": 1}), ("a", {"k": 2})]
    folders = [stages.run(name, work, Counted, settings=Settings(), identity=i).folder for name, i in names]
    assert len(set(folders)) == len(names)
    stages.run("a", work, Counted, settings=Settings(), identity="x")
    assert len(work.calls) == len(names)


def test_settings_that_change_no_result_are_no_reason_to_run_again(stages: Stages) -> None:
    work = Work()
    done = stages.run("a", work, Counted, settings=Settings(1), identity="x")
    journal = Journal(stages.journal.folder.parent / "pipeline_of_other_settings")
    journal.begin(name="pipeline", tags={})
    again = Stages(stages.folder, journal).run("a", work, Counted, settings=Settings(2), identity="x")
    assert len(work.calls) == 1
    assert again == done
    assert story(again.journal) == ["begin", "FINISHED"], "its record is found from another pipeline"


def test_a_stage_is_recorded_within_its_pipeline(stages: Stages) -> None:
    done = stages.run("a/shown", Work(), Counted, settings=Settings(7), identity="x")
    begin = done.journal.first("begin")
    params = done.journal.first("params")
    assert begin is not None
    assert params is not None
    assert begin.fields["name"] == "shown"
    assert done.journal.locate(begin.fields["parent"]) == stages.journal.folder.absolute()
    assert params.fields["params"] == {"value": "7", "output": str(done.folder.absolute())}


def test_a_stage_may_be_a_part_of_another_run(stages: Stages) -> None:
    """Which is begun again for it, and then has both times of work and none of what lies between."""
    whole = stages.run("train/shown", Work(), Counted, settings=Settings(7), identity="x")
    time.sleep(0.2)
    part = stages.run(
        "evaluate/shown", Work(), Counted, settings=Settings(8), identity="x", within=whole.journal
    )
    assert part.journal == whole.journal
    assert part.folder != whole.folder
    assert story(whole.journal) == ["begin", "FINISHED", "resumed", "FINISHED"]
    assert [r.fields["params"]["value"] for r in whole.journal.read() if r.kind == "params"] == ["7"]
    assert 0 <= whole.journal.seconds_of_work() < 0.2


def test_a_part_of_the_pipeline_neither_begins_nor_ends_it(stages: Stages) -> None:
    stages.run("report", Work(), Counted, settings=Settings(), identity="x", within=stages.journal)
    assert story(stages.journal) == ["begin"]
