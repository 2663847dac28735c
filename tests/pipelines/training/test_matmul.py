"""What a run multiplies by on a CPU stays with it: it goes on, and its steps run again, to the bit."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from pipelines.checkpoints.checkpoint import read_matmul
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.replay import replay
from tests.pipelines.runs import pretrain, run_identity
from vlp.core.matmul import Matmul
from vlp.run import RunConfig
from vlp.training.bad_steps import BadStepError
from vlp.training.cpu import fastest_matmul

MakeRun = Callable[..., RunConfig]


class Calls(TorchFunctionMode):
    """What of PyTorch is called."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: set[Any] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.functions.add(func)
        return func(*args, **(kwargs or {}))


def train(run: RunConfig, output: Path, matmul: Matmul | None) -> str:
    """The digest of the weights that training in this process ends with."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    checkpoints = CheckpointSettings(every_steps=2, keep=9)
    machine = MachineConfig(num_workers=0, matmul=matmul, checkpoints=checkpoints)
    pretrain(run, output, machine=machine, journal=journal)
    return json.loads((output / "manifest.json").read_text())["digest"]


def test_a_run_goes_on_with_what_it_began_with_whatever_is_fastest_where_it_goes_on(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run(training={"length": {"steps": 6}})
    ways: tuple[Matmul, ...] = ("pytorch", "onednn")
    for way in ways:
        output = tmp_path / way
        digest = train(run, output, way)
        (output / "manifest.json").unlink()
        for step in (4, 6):
            shutil.rmtree(output / "checkpoints" / f"step_{step:07d}")
        assert train(run, output, None) == digest
        assert read_matmul(output / "checkpoints" / "step_0000006") == way


def test_a_run_begins_with_what_is_fastest_which_is_no_part_of_its_identity(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    run = tiny_run()
    begun = train(run, tmp_path / "begun", None)
    tags = [r.fields["tags"] for r in Journal(tmp_path / "journal-begun").read() if r.kind == "tags"]
    assert {"matmul": fastest_matmul()} in tags
    assert begun == train(run, tmp_path / "set", fastest_matmul())
    assert read_matmul(tmp_path / "begun" / "checkpoints" / "step_0000003") == fastest_matmul()
    assert "matmul" not in (tmp_path / "begun" / "identity.json").read_text()
    assert run_identity(run) == run_identity(tiny_run())


@pytest.mark.parametrize("way", ["pytorch", "onednn"])
def test_a_saved_step_runs_again_as_it_was_multiplied(tiny_run: MakeRun, tmp_path: Path, way: Matmul) -> None:
    spike = {"spike": 1.02, "window": 2}
    run = tiny_run(training={"length": {"steps": 12}, "on_bad_step": spike})
    with pytest.raises(BadStepError):
        train(run, tmp_path / "run", way)
    (folder,) = (tmp_path / "run" / "bad_steps").iterdir()
    with Calls() as calls:
        found = replay(folder)
    assert found.loss == found.saved_loss
    assert (F.linear in calls.functions) == (way == "pytorch")
