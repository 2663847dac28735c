"""Checkpoints that are copied elsewhere outlive their machine, and copying them harms nobody."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipelines.checkpoints import mirroring
from pipelines.checkpoints.checkpoint import CONFIG, TRAINING
from pipelines.checkpoints.store import find_damage, list_saved
from pipelines.commands.main import main
from pipelines.config.errors import UserError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.config.settings import to_dict
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from tests.servers.object_store import ObjectStore, serving
from tests.servers.ports import free_port
from tests.waiting import wait_until
from vlp.checkpoint import MODEL, SETTINGS
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder

MakeRun = Callable[..., RunConfig]
# All that a run has to remember: averaged weights, and a threshold that follows them.
RUN = {
    "mask": {"name": "cluster", "feature": "mix", "anchor_ratio": 0.2, "min_mask_ratio": 0.2},
    "training": {"length": {"steps": 6}, "ema": {"decay": 0.5, "chooses_masks": True}},
}


@dataclasses.dataclass(frozen=True)
class Watched(Journal):
    """A journal that calls a function with each step whose loss is written."""

    watch: Callable[[int], None]

    def metrics(self, metrics: Any, *, step: int = 0) -> None:
        super().metrics(metrics, step=step)
        if "train/loss" in metrics:
            self.watch(step)


def train(
    run: RunConfig,
    output: Path,
    watch: Callable[[int], None] | None = None,
    *,
    num_workers: int = 0,
    mirror: Folder | None = None,
    **checkpoints: Any,
) -> str:
    """Train, in this process unless `num_workers` is given; returns the digest of the weights."""
    machine = MachineConfig(
        storage=mirror or LocalFolder(output.parent),
        work=output.parent,
        num_workers=num_workers,
        log_every_steps=1,
        checkpoints=dataclasses.replace(CheckpointSettings(every_steps=2, keep=3), **checkpoints),
    )
    folder = output.parent / f"journal-{output.name}"
    journal = Watched(folder, watch) if watch else Journal(folder)
    journal.begin(name=run.name, tags={})
    return pretrain(run, output, machine=machine, journal=journal).digest


def mirrored(mirror: Folder, name: str = "run") -> Folder:
    """The folder of a run's checkpoints in the storage."""
    return mirror / name / "checkpoints"


def steps(checkpoints: Path | Folder) -> list[int]:
    return [one.step for one in list_saved(checkpoints)]


@pytest.fixture
def run(tiny_run: MakeRun) -> RunConfig:
    return tiny_run(**RUN)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {}


@pytest.fixture
def digest(undisturbed: dict[str, str], run: RunConfig, tmp_path: Path) -> str:
    """Of the weights of the run on a machine without a mirror."""
    if "digest" not in undisturbed:
        undisturbed["digest"] = train(run, tmp_path / "undisturbed")
    return undisturbed["digest"]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lost")


@pytest.fixture
def mirror(lost: Path, run: RunConfig, tmp_path: Path) -> LocalFolder:
    """Of a run whose machine was lost; trained once for all tests."""
    if not (lost / "mirror").exists():
        train(run, lost / "run", mirror=LocalFolder(lost / "mirror"))
    return LocalFolder(shutil.copytree(lost / "mirror", tmp_path / "mirror"))


def test_the_mirror_has_the_files_of_the_checkpoints(
    run: RunConfig, digest: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    mirror = object_store.bucket()
    assert train(run, tmp_path / "run", mirror=mirror, keep=2) == digest
    there = mirrored(mirror)
    assert there.folders() == {"step_0000004", "step_0000006"}
    for folder in (tmp_path / "run" / "checkpoints").glob("step_*"):
        names = {file.name for file in folder.iterdir()}
        assert (there / folder.name).names() == names == {MODEL, TRAINING, SETTINGS, CONFIG, MANIFEST}
        assert all((there / folder.name).read(name) == (folder / name).read_bytes() for name in names)
    assert b'"step": 5' in (mirror / "journal-run").read("journal.jsonl"), "the journal goes before them"
    assert object_store.unfinished_uploads(mirror) == 0


@pytest.mark.parametrize("last", [2, 4, 6])
def test_a_new_machine_goes_on_where_the_old_one_was_lost(
    last: int,
    run: RunConfig,
    digest: str,
    object_store: ObjectStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = object_store.bucket()
    train(run, tmp_path / "old" / "run", mirror=mirror)
    there = mirrored(mirror)
    for step in range(last + 2, 8, 2):
        there.delete_folder(f"step_{step:07d}")
    shutil.rmtree(tmp_path / "old")
    capsys.readouterr()
    assert train(run, tmp_path / "new" / "run", mirror=mirror) == digest
    said = capsys.readouterr().out
    assert f"took checkpoint step_{last:07d} from {there}\n" in said
    assert f"going on from the checkpoint after step {last}," in said
    assert steps(there) == [2, 4, 6]
    assert steps(tmp_path / "new" / "run" / "checkpoints") == list(range(last, 8, 2))


@pytest.mark.slow
def test_a_ray_worker_copies_its_checkpoints_too(
    ray_cluster: None, run: RunConfig, digest: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    mirror = object_store.bucket()
    assert train(run, tmp_path / "run", mirror=mirror, num_workers=1) == digest
    assert steps(mirrored(mirror)) == [2, 4, 6]


@pytest.mark.parametrize("file", [MODEL, TRAINING, SETTINGS, CONFIG, MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_broken_checkpoints_of_the_mirror_are_passed_over_and_replaced(
    file: str,
    damage: str,
    run: RunConfig,
    digest: str,
    mirror: LocalFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = mirrored(mirror)
    newest = there / "step_0000006"
    if damage == "cut":
        newest.write(file, newest.read(file)[:-40])
    else:
        newest.delete(file)
    capsys.readouterr()
    assert train(run, tmp_path / "run", mirror=mirror) == digest
    said = [line for line in capsys.readouterr().out.splitlines() if "is broken" in line]
    if (file, damage) == (MANIFEST, "lost"):  # as where copying it was cut
        assert not said
    else:
        assert len(said) == 1
        assert said[0].startswith(f"[pretrain tiny] checkpoint step_0000006 in {there} is broken: its ")
        assert said[0].endswith("; taking step_0000004")
    assert steps(there) == [2, 4, 6]
    assert find_damage(Path(str(newest))) is None


def test_the_newest_checkpoint_in_a_store_may_have_other_content(
    run: RunConfig, digest: str, object_store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same size, as a checksum alone can tell."""
    mirror = object_store.bucket()
    train(run, tmp_path / "run", mirror=mirror)
    newest = mirrored(mirror) / "step_0000006"
    content = bytearray(newest.read(MODEL))
    content[len(content) // 2] ^= 1
    newest.write(MODEL, bytes(content))
    shutil.rmtree(tmp_path / "run")
    assert train(run, tmp_path / "run", mirror=mirror) == digest
    said = capsys.readouterr().out
    assert (
        "is broken: its model.safetensors has other content than was written; taking step_0000004\n" in said
    )
    assert newest.read(MODEL) == (tmp_path / "run/checkpoints/step_0000006" / MODEL).read_bytes()


def test_a_mirror_of_broken_checkpoints_leaves_the_choice_to_its_user(
    run: RunConfig, digest: str, mirror: LocalFolder, tmp_path: Path
) -> None:
    there = mirrored(mirror)
    for name in there.folders():
        (there / name).write(TRAINING, b"")
    with pytest.raises(
        UserError, match=r"3 checkpoints and all are broken \(step_0000006: its training"
    ) as e:
        train(run, tmp_path / "run", mirror=mirror)
    assert str(there) in str(e.value)
    assert "\n" not in str(e.value)
    assert steps(there) == [2, 4, 6]
    shutil.rmtree(str(there))  # the remedy that the message names
    assert train(run, tmp_path / "run", mirror=mirror) == digest


def test_a_run_goes_on_from_the_newest_whole_checkpoint_of_both_places(
    run: RunConfig, digest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another machine may have gone on with it meanwhile; of one step, what is here need not be copied."""
    mirror = LocalFolder(tmp_path / "mirror")
    train(run, tmp_path / "run", mirror=mirror)
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.rmtree(checkpoints / "step_0000006")
    capsys.readouterr()
    assert train(run, tmp_path / "run", mirror=mirror) == digest
    assert "took checkpoint step_0000006" in capsys.readouterr().out
    assert train(run, tmp_path / "run", mirror=mirror) == digest
    assert "took checkpoint" not in capsys.readouterr().out
    for step in (2, 4, 6):
        (checkpoints / f"step_{step:07d}" / MODEL).write_bytes(b"")
    assert train(run, tmp_path / "run", mirror=mirror) == digest
    assert "took checkpoint step_0000006" in capsys.readouterr().out


def test_a_mirror_is_shared_by_runs_and_each_finds_its_own(
    tiny_run: MakeRun, run: RunConfig, digest: str, tmp_path: Path
) -> None:
    mirror = LocalFolder(tmp_path / "mirror")
    other = tiny_run(**RUN, seed=7)
    others = train(other, tmp_path / "other", mirror=mirror)
    assert train(run, tmp_path / "run", mirror=mirror) == digest != others
    shutil.rmtree(tmp_path / "other")
    assert train(other, tmp_path / "other", mirror=mirror) == others
    shutil.copy(tmp_path / "mirror/other/identity.json", tmp_path / "mirror/run/identity.json")
    with pytest.raises(UserError, match="holds a run with other settings or data: seed was 7, now 0; "):
        train(run, tmp_path / "new" / "run", mirror=mirror)


def test_what_the_mirror_keeps_is_chosen_among_its_own_too(
    run: RunConfig, digest: str, tmp_path: Path
) -> None:
    """A new machine has one checkpoint; the older one that is to stay is in the mirror alone."""
    mirror = LocalFolder(tmp_path / "mirror")
    settings: dict[str, Any] = {"mirror": mirror, "keep": 1, "keep_every_steps": 4}
    train(run, tmp_path / "run", **settings)
    there = mirrored(mirror)
    assert steps(there) == [4, 6]
    shutil.rmtree(tmp_path / "run")
    assert train(run, tmp_path / "run", **settings) == digest
    assert steps(tmp_path / "run" / "checkpoints") == [6]
    assert steps(there) == [4, 6]


def test_a_store_that_dies_stops_nothing_and_the_next_run_copies_the_rest(
    run: RunConfig, digest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with ExitStack() as alive:
        mirror = alive.enter_context(serving(os.environ, port)).bucket("mirror")
        there = mirrored(mirror)

        def die(step: int) -> None:
            if step == 3:
                wait_until(lambda: steps(there) == [2])
                alive.close()

        assert train(run, tmp_path / "run", die, mirror=mirror) == digest
    said = [line for line in capsys.readouterr().out.splitlines() if "mirror: " in line]
    assert "the store does not answer" in said[0]
    assert said[0].endswith("; the next checkpoint is another try")
    assert said[-1].endswith(f"{there} is not complete: run the same command again, which copies the rest")
    with serving(os.environ, port) as store:
        store.bucket("mirror")
        assert train(run, tmp_path / "run", mirror=mirror) == digest
        assert steps(there) == [2, 4, 6]
    assert "mirror: " not in capsys.readouterr().out


class SlowFolder(LocalFolder):
    """A folder in which no file of a checkpoint is written before a gate opens."""

    def __init__(self, path: Path, reached: Event, gate: Event) -> None:
        super().__init__(path)
        self.reached, self.gate = reached, gate

    def __truediv__(self, name: str) -> "SlowFolder":
        return SlowFolder(self.path / name, self.reached, self.gate)

    def absolute(self, start: Path | None = None) -> "SlowFolder":
        return self

    def write(self, name: str, content: Any) -> None:
        if self.name.startswith("step_"):
            self.reached.set()
            self.gate.wait()
        super().write(name, content)


def test_training_does_not_wait_for_a_slow_mirror_and_keeps_what_is_being_copied(
    run: RunConfig, digest: str, tmp_path: Path
) -> None:
    """The first checkpoint would be deleted long before its copying ends."""
    mirror = SlowFolder(tmp_path / "mirror", Event(), Event())
    checkpoints, seen = tmp_path / "run" / "checkpoints", []

    def look(step: int) -> None:
        if step == 3:
            assert mirror.reached.wait(60)
        if step == 6:
            wait_until(lambda: 4 in steps(checkpoints))
            time.sleep(0.1)  # for what would be deleted
            seen.extend(steps(checkpoints))
            mirror.gate.set()

    assert train(run, tmp_path / "run", look, mirror=mirror, keep=1) == digest
    assert seen == [2, 4]
    assert steps(checkpoints) == steps(mirrored(mirror)) == [6]


def test_the_end_of_a_run_waits_for_its_mirror_for_a_while(
    run: RunConfig,
    digest: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mirroring, "FINISH_SECONDS", 0.1)
    mirror = SlowFolder(tmp_path / "mirror", Event(), Event())
    try:
        assert train(run, tmp_path / "run", mirror=mirror) == digest
    finally:
        mirror.gate.set()
    said = capsys.readouterr().out
    assert "is not complete after 0.1 s: run the same command again, which copies the rest\n" in said
    monkeypatch.undo()
    assert train(run, tmp_path / "run", mirror=mirror) == digest
    assert steps(mirrored(mirror)) == [2, 4, 6]


MISTAKES = {
    "a scheme": ("ftp://host/x", "machine.storage: nothing reads ftp:// folders"),
    "no bucket": (
        "s3://nowhere/x",
        "machine.storage: cannot write to s3://nowhere/x: there is no",
    ),
    "no store": ("s3://x/y?endpoint_override=http://127.0.0.1:9", "the store does not answer; check"),
    "a file": ("{folder}/run.yaml", "machine.storage: cannot write to {folder}/run.yaml: "),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_wrong_mirror_is_one_line_before_any_work(
    kind: str, run: RunConfig, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", object_store.address)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(run)))
    mirror, line = (text.format(folder=tmp_path) for text in MISTAKES[kind])
    result = CliRunner().invoke(
        main, ["pretrain", "run.yaml", f"machine.storage={mirror}", "machine.work=work"]
    )
    assert result.exit_code == 2, result.output
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["run.yaml"]
