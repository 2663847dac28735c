"""What Weights & Biases itself reads of journals, where nobody is logged in."""

import json
import struct
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.machine import MachineConfig
from pipelines.tracking.boards import Boards, boards
from pipelines.tracking.journal import Journal
from pipelines.tracking.weights_and_biases import WeightsAndBiases
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


def records(folder: Path) -> list[Any]:
    """What `wandb sync` would send of a run, in order."""
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    proto = import_module("wandb.proto.wandb_internal_pb2")  # its classes are made when it is imported
    return [proto.Record.FromString(data) for file in files for data in logged(file.read_bytes())]


def logged(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: blocks of 32 KiB of checksum, length, kind and bytes."""
    place, parts = 7, b""  # behind the file's own header
    while place + 7 <= len(content):
        left = -place % 32768 or 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, without what Weights & Biases adds to them."""
    rows = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            rows.append({key: json.loads(value) for key, value in items.items() if key[0] != "_"})
    return rows


def test_numbers_pictures_and_settings_are_there_each_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journals" / "pretrain" / "clip-1")  # as deep as a pipeline's
    journal.begin(name="clip", tags={})
    journal.params({"optimizer.lr": 1e-3})
    picture = tmp_path / "masks.png"
    Image.new("RGB", (4, 3), (255, 0, 0)).save(picture)
    shown = tmp_path / "wandb" / "mine"
    with Boards(tmp_path / "journals", shown, WeightsAndBiases(project="mine"), poll_seconds=0.05):
        for step in (1, 2):
            journal.metrics({"train/loss": 1 / step}, step=step)
        journal.image("masks", picture, step=2)
    ended = int(time.time())
    wait_until(lambda: time.time() >= ended + 1, seconds=2)  # its folders are named by seconds
    journal.begin(name="clip", tags={})
    with Boards(tmp_path / "journals", shown, WeightsAndBiases(project="mine"), poll_seconds=0.05):
        for step in (2, 3):  # a run that goes on repeats some
            journal.metrics({"train/loss": 1 / step}, step=step)
    wait_until(lambda: len(history(shown)) >= 4, seconds=20)  # its own process writes them
    rows = history(shown)
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    (masks,) = [row for row in rows if "masks/path" in row]
    (stored,) = shown.glob(f"wandb/offline-run-*/files/{masks['masks/path']}")
    assert Image.open(stored).getpixel((3, 2)) == (255, 0, 0)
    assert masks["step"] == 2
    runs = [record.run for record in records(shown) if record.WhichOneof("record_type") == "run"]
    assert {(run.project, run.display_name, run.run_id) for run in runs} == {
        ("mine", "clip", journal.first("begin").fields["uuid"])  # type: ignore[union-attr]
    }


def test_the_command_that_sends_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with boards(["wandb"], tmp_path / "journals" / "mine", tmp_path):
        pass
    assert capsys.readouterr().out == f"boards:  wandb sync {tmp_path}/wandb/mine/wandb/offline-run-*\n"


def test_it_is_a_choice_of_the_machine() -> None:
    assert MachineConfig(tracking=("mlflow", "wandb")).tracking == ("mlflow", "wandb")
