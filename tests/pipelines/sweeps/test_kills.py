"""A sweep whose processes are killed at random moments comes to what it would have come to."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from tests.pipelines.sweeps.tiny import METRIC, PIPELINE
from tests.servers.ray_head import ray_head

SWEEP: dict[str, Any] = {
    "name": "whole",
    "run": "flip",
    "overrides": {"evaluation.every_steps": 10},
    "space": {"optimizer.lr": {"loguniform": [0.001, 0.1]}},
    "metrics": {METRIC: "max"},
    "num_trials": 5,
    "scheduler": {"name": "asha", "grace_steps": 10},
}
TRIAL, WORKER = "ray::ImplicitFunc", "ray::RayTrainWorker"
KILLS = ["driver"] * 3 + [TRIAL] * 2 + [WORKER] * 2 + ["SIGINT"] * 2 + ["SIGTERM"]
EXIT_CODES = {"driver": -signal.SIGKILL, "SIGINT": 1, "SIGTERM": 143}


class Drill:
    """Sweeps over the same data, on a cluster that outlives their processes."""

    def __init__(self, folder: Path, address: str) -> None:
        self.address, self.storage, self.log = address, folder / "results", folder / "log.txt"
        (folder / "tiny.yaml").write_text(yaml.safe_dump(PIPELINE))
        file = folder / "sweep.yaml"
        file.write_text(yaml.safe_dump(SWEEP | {"pipeline": str(folder / "tiny.yaml")}))
        self.command = [sys.executable, "-m", "pipelines", "sweep", str(file), "machine.data_workers=0"]
        self.command += ["machine.recovery.max_failures=10"]
        self.command += [f"machine.storage={self.storage}", f"machine.ray_address={address}"]

    def start(self, name: str) -> psutil.Popen:
        """The process of a sweep; its output is added to the log."""
        with self.log.open("a") as stream:
            return psutil.Popen([*self.command, f"name={name}"], stdout=stream, stderr=stream)

    def end(self, name: str) -> None:
        """Go on with a sweep until it ends."""
        assert self.start(name).wait() == 0, self.log.read_text()

    def file(self, name: str, pattern: str) -> Path:
        """Of a sweep that has begun."""
        (found,) = self.storage.glob(f"sweeps/{name}-*/{pattern}")
        return found

    def history(self, name: str) -> list[dict[str, Any]]:
        """What was proposed, measured and decided."""
        lines = self.file(name, "history.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [{k: v for k, v in one.items() if k != "time"} for one in records if one["kind"] != "began"]

    def count(self, name: str, kind: str) -> int:
        """What happened so far, of one kind."""
        files = self.storage.glob(f"sweeps/{name}-*/history.jsonl")
        return sum(file.read_text().count(f'"{kind}"') for file in files)

    def weights(self, name: str) -> dict[str, str]:
        """Digests, of each trial that came to its end."""
        files = self.storage.glob(f"sweeps/{name}-*/trials/*/manifest.json")
        return {file.parent.name: json.loads(file.read_text())["digest"] for file in files}

    def tracked(self, name: str) -> list[Any]:
        """Runs of the trials in MLflow."""
        client = MlflowClient(f"sqlite:///{self.storage / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        return [run for run in runs if run.data.tags.get("trial_id")]

    def assert_as_undisturbed(self, name: str) -> None:
        """The same trials, decisions, weights and winner; each trial once in MLflow, with its true end."""
        assert self.history(name) == self.history("whole")
        assert self.weights(name) == self.weights("whole")
        best = [self.file(one, "best.yaml").read_text() for one in ("whole", name)]
        assert best[0] == best[1]
        ends = [
            {(run.data.tags["trial_id"], run.info.status, run.data.tags["stop_reason"]) for run in runs}
            for runs in (self.tracked("whole"), self.tracked(name))
        ]
        assert len(self.tracked(name)) == len(ends[1]) == SWEEP["num_trials"]
        assert ends[0] == ends[1]
        assert {status for _, status, _ in ends[1]} == {"FINISHED"}


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """With a sweep that was not disturbed; there is room for one trial at a time, whose results come in one
    order."""
    with ray_head(tmp_path_factory.mktemp("ray"), num_cpus=2) as head:
        drill = Drill(tmp_path_factory.mktemp("sweep"), head.address)
        drill.end("whole")
        yield drill


def kill_one(driver: psutil.Popen, victim: str) -> None:
    """Send the driver a signal, or kill a process of the cluster, as soon as there is one."""
    if victim in EXIT_CODES:
        driver.send_signal(signal.SIGKILL if victim == "driver" else signal.Signals[victim])
        return
    while driver.poll() is None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(victim):
                    process.kill()
                    return
        time.sleep(0.05)
    raise AssertionError(f"the sweep ended before its {victim} was killed")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_at_random_moments_change_nothing(drill: Drill) -> None:
    count, chance = drill.count("whole", "measured"), random.Random(0)
    scores = {tuple(one["metrics"].values()) for one in drill.history("whole") if "metrics" in one}
    assert len(scores) > count // 2  # there is something to decide
    moments = sorted(chance.choices(range(count - 2), k=len(KILLS)))
    driver, num_starts = drill.start("cut"), 1
    for moment, victim in zip(moments, chance.sample(KILLS, len(KILLS)), strict=True):
        while drill.count("cut", "began") < num_starts or drill.count("cut", "measured") < moment:
            assert driver.poll() is None, drill.log.read_text()
            time.sleep(0.05)
        time.sleep(3 * chance.random())  # in the middle of anything
        kill_one(driver, victim)
        if victim in EXIT_CODES:
            assert driver.wait() == EXIT_CODES[victim], drill.log.read_text()
            assert not list(drill.storage.glob("sweeps/cut-*/best.yaml"))
            if victim != "driver":
                assert "RUNNING" not in {run.info.status for run in drill.tracked("cut")}
            driver, num_starts = drill.start("cut"), num_starts + 1
    assert driver.wait() == 0, drill.log.read_text()
    drill.assert_as_undisturbed("cut")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_sweep_had_not_heard_when_it_was_killed_is_said_again(drill: Drill) -> None:
    """The last trial had measured all, and saved its last checkpoint."""
    file = drill.file("whole", "history.jsonl")
    whole = drill.history("whole")
    lines = file.read_text().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if '"finished"' in line)
    run = json.loads(lines[last])["run"]
    heard = [line for line in lines[:last] if json.loads(line).get("run") != run]
    file.write_text("".join(heard))
    later = [one for one in whole if one.get("run") != run]
    drill.end("whole")
    again = drill.history("whole")
    assert [one for one in again if one.get("run") == run] == [one for one in whole if one.get("run") == run]
    assert [one for one in again if one.get("run") != run] == later


@pytest.mark.slow
def test_nothing_is_held_after_the_sweeps(drill: Drill) -> None:
    """Asked in a process of its own."""
    script = (
        "import ray, time; from ray.util import placement_group_table\n"
        f"ray.init({drill.address!r}, logging_level='error')\n"
        "deadline = time.monotonic() + 60\n"
        "while time.monotonic() < deadline and ray.available_resources()['CPU'] < 2: time.sleep(0.2)\n"
        "held = [one for one in placement_group_table().values() if one['state'] != 'REMOVED']\n"
        "assert ray.available_resources()['CPU'] == 2 and not held, (ray.available_resources(), held)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
