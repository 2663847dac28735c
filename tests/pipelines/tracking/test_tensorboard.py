"""What TensorBoard itself shows of journals."""

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from PIL import Image

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.tracking.boards import Boards
from pipelines.tracking.journal import Journal
from pipelines.tracking.tensorboard import TensorBoard
from tests.servers.ports import free_port
from tests.waiting import wait_until

NUMBERS, PICTURES = "scalars/tags", "images/tags"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a running TensorBoard."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={tmp_path / 'boards'}", f"--port={port}"]
    command += ["--reload_interval=1", "--load_fast=false"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{port}/data/plugin"

        def is_there() -> bool:
            assert server.poll() is None
            try:
                return ask(address, NUMBERS) is not None
            except URLError:
                return False

        wait_until(is_there, seconds=120)
        yield address
        server.terminate()


def ask(address: str, what: str, **fields: str) -> Any:
    with urllib.request.urlopen(f"{address}/{what}?{urllib.parse.urlencode(fields)}") as response:
        return json.load(response)


def test_numbers_pictures_and_settings_are_shown_each_once(address: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journals" / "clip-1")
    journal.begin(name="clip", tags={})
    journal.params({"optimizer.lr": 1e-3})
    picture = tmp_path / "masks.png"
    Image.new("RGB", (4, 3), (255, 0, 0)).save(picture)
    journal.image("masks", picture, step=2)
    boards = tmp_path / "boards"
    with Boards(tmp_path / "journals", boards, TensorBoard(), poll_seconds=0.05):
        for step in (1, 2):
            journal.metrics({"train/loss": 1 / step, "val/dev/recall@1": 0.5}, step=step)
    journal.begin(name="clip", tags={})
    with Boards(tmp_path / "journals", boards, TensorBoard(), poll_seconds=0.05):
        for step in (2, 3):  # a run that goes on repeats some
            journal.metrics({"train/loss": 1 / step}, step=step)
    wait_until(lambda: all(ask(address, what).get("clip-1") for what in (NUMBERS, PICTURES)), seconds=60)
    assert sorted(ask(address, NUMBERS)["clip-1"]) == ["train/loss", "val/dev/recall_at_1"]
    points = ask(address, "scalars/scalars", run="clip-1", tag="train/loss")
    assert [(step, value) for _, step, value in points] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    (shown,) = ask(address, "images/images", run="clip-1", tag="masks", sample="0")
    assert shown["step"] == 2
    with urllib.request.urlopen(f"{address}/images/individualImage?{shown['query']}") as response:
        assert Image.open(response).convert("RGB").getpixel((3, 2)) == (255, 0, 0)
    (text,) = ask(address, "text/text", run="clip-1", tag="settings/text_summary")
    assert "optimizer.lr" in text["text"]


def test_what_is_whole_stays_and_what_was_cut_goes_on(address: str, tmp_path: Path) -> None:
    journal, boards = Journal(tmp_path / "journals" / "clip"), tmp_path / "boards"
    journal.begin(name="clip", tags={})
    journal.metrics({"loss": 1.0}, step=1)
    with Boards(tmp_path / "journals", boards, TensorBoard(), poll_seconds=0.05):
        pass
    files = {file: file.stat().st_mtime_ns for file in (boards / "clip").iterdir()}
    with Boards(tmp_path / "journals", boards, TensorBoard(), poll_seconds=0.05):
        pass
    assert files == {file: file.stat().st_mtime_ns for file in (boards / "clip").iterdir()}
    journal.metrics({"loss": 1.0}, step=1)
    journal.metrics({"loss": 0.5}, step=2)
    with Boards(tmp_path / "journals", boards, TensorBoard(), poll_seconds=0.05):
        pass

    def points() -> list[Any]:
        is_there = ask(address, NUMBERS).get("clip")
        return ask(address, "scalars/scalars", run="clip", tag="loss") if is_there else []

    wait_until(lambda: len(points()) > 1, seconds=60)
    assert [(step, value) for _, step, value in points()] == [(1, 1.0), (2, 0.5)]


def test_a_failure_is_said_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "journals" / "clip")
    journal.begin(name="clip", tags={})
    (tmp_path / "boards").write_text("a file in the folder's place")
    with Boards(tmp_path / "journals", tmp_path / "boards", TensorBoard(), poll_seconds=0.05):
        journal.metrics({"loss": 1.0}, step=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert "TensorBoard's files in" in line
    assert "are not complete" in line


def test_mlflow_stays() -> None:
    layers = Layers().add({"tracking": ["tensorboard"]}, "machine.yaml")
    with pytest.raises(ConfigError, match=r"machine\.yaml: .*mlflow, which holds everything, has to be"):
        build(MachineConfig, layers, prefix="machine")
