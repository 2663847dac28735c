"""A set-up that cannot work ends before it starts, in one line that names key, value and remedy."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.compute.cluster import connect_for_training, room_on_node
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import to_dict
from tests.paths import REPOSITORY
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def settings(tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A run and a pipeline of it, 24 samples each, as files; the folder of work is empty but for them."""
    monkeypatch.chdir(tmp_path)
    run, pipeline = tmp_path / "run.yaml", tmp_path / "pipeline.yaml"
    run.write_text(yaml.safe_dump(to_dict(tiny_run(training={"batch_size": 8}))))
    content = {
        "name": "p",
        "corpus": {"name": "tiny_world", "num_train": 24, "image_size": 32},
        "runs": [{"base": str(run)}],
    }
    pipeline.write_text(yaml.safe_dump(content))
    return {"pretrain": run, "print-config": run, "run": pipeline}


ANYWHERE = ("pretrain", "run", "print-config")
MISTAKES: dict[str, tuple[tuple[str, ...], list[str], list[str]]] = {
    "batch not a multiple of workers": (
        ANYWHERE,
        ["training.batch_size=10", "machine.num_workers=4"],
        ["training.batch_size 10", "machine.num_workers 4", "set training.batch_size to 8 or 12"],
    ),
    "batch not a multiple of every number of workers": (
        ANYWHERE,
        ["training.batch_size=10", "machine.num_workers=[1, 4]"],
        ["machine.num_workers [1, 4]: 10 = 3 x 3 + 1, 10 = 2 x 4 + 2;", "batch_size to 12, multiples of 12"],
    ),
    "more parts than pairs of the most workers": (
        ANYWHERE,
        ["machine.memory.batch_parts=5", "machine.num_workers=[1, 2]"],
        ["machine.memory.batch_parts is 5", "each of 2 workers has 4 of the 8 pairs", "to 4 at most"],
    ),
    "more parts than pairs": (
        ANYWHERE,
        ["machine.memory.batch_parts=5", "machine.num_workers=2"],
        ["machine.memory.batch_parts is 5", "each of 2 workers has 4 of the 8 pairs", "to 4 at most"],
    ),
    "image no multiple of patch": (
        ANYWHERE,
        ["image_encoder.image_size=30"],
        ["image_encoder.image_size 30", "patch_size 8"],
    ),
    "no patch left": (
        ANYWHERE,
        ["mask.mask_ratio=0.95"],
        ["mask.mask_ratio 0.95 leaves no patch", "16 x (1 - 0.95) = 0.8", "set it to 0.937 at most"],
    ),
    "no patch left in the end": (
        ANYWHERE,
        ["mask.mask_ratio={start: 0.1, end: 0.99}"],
        ["mask.mask_ratio 0.99", "set it to 0.937 at most"],
    ),
    "no patch left under the floor": (
        ANYWHERE,
        ["mask={name: cluster, min_mask_ratio: 0.99}"],
        ["mask.min_mask_ratio 0.99", "16 x (1 - 0.99) = 0.16"],
    ),
    "cells that do not fit": (
        ANYWHERE,
        ["mask={name: grid, cell_size: 3}"],
        ["mask.cell_size 3 does not divide the 4 patches of a side"],
    ),
    "best of nothing": (
        ANYWHERE,
        ["machine.checkpoints.keep_best=2"],
        ["machine.checkpoints.keep_best is 2", "set evaluation.every_steps"],
    ),
    "validation beside a training without Ray": (
        ANYWHERE,
        ["machine.validation_workers=1", "machine.num_workers=0"],
        ["machine.validation_workers is 1 and num_workers 0", "num_workers to at least 1"],
    ),
    "kept steps without a checkpoint": (
        ANYWHERE,
        ["machine.checkpoints.keep_every_steps=150", "machine.checkpoints.every_steps=100"],
        ["machine.checkpoints.keep_every_steps", "multiple of every_steps (100)", "150"],
    ),
    "fewer samples than a batch": (
        ("pretrain", "run"),
        ["training.batch_size=32"],
        ["training.batch_size is 32", "24 samples", "set training.batch_size to 24 at most"],
    ),
    "more workers than GPUs": (
        ("pretrain", "run"),
        ["machine.use_gpu=true", "machine.num_workers=2"],
        ["machine.use_gpu", "machine.num_workers 2 needs 2 GPUs", "has 0", "or set machine.use_gpu=false"],
    ),
    "more of the least workers than GPUs": (
        ("pretrain", "run"),
        ["training.batch_size=12", "machine.use_gpu=true", "machine.num_workers=[2, 4]"],
        ["machine.num_workers [2, 4] needs 2 GPUs", "has 0"],
    ),
}
CASES = [(kind, command) for kind, (commands, _, _) in MISTAKES.items() for command in commands]


@pytest.mark.parametrize(("kind", "command"), CASES)
def test_a_wrong_setup_starts_nothing(
    kind: str, command: str, settings: dict[str, Path], tmp_path: Path
) -> None:
    _, overrides, expected = MISTAKES[kind]
    if command == "run":  # the settings of a run are `common` to all of a pipeline's
        overrides = [x if x.startswith("machine.") else f"common.{x}" for x in overrides]
    before = sorted(tmp_path.iterdir())
    line = refusal(command, settings[command], *overrides)
    assert [part for part in expected if part not in line] == []
    assert sorted(tmp_path.iterdir()) == before


def refusal(*arguments: Any) -> str:
    """The one line with which a command refuses."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stderr.startswith("vlp: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("command", ["pretrain", "run"])
def test_ray_is_not_started_for_a_mistake(command: str, settings: dict[str, Path]) -> None:
    """In a process of its own, whose modules tell what it has loaded."""
    run = "import sys; from pipelines.commands.main import main\ntry: main(sys.argv[1:])\n"
    code = run + "finally: print('ray' in sys.modules)"
    overrides = ["machine.num_workers=3", "machine.use_gpu=true"]
    arguments = [sys.executable, "-c", code, command, str(settings[command]), *overrides]
    done = subprocess.run(arguments, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 2, done.stderr
    assert "batch_size 8 is not a multiple of machine.num_workers 3" in done.stderr
    assert done.stdout == "False\n"


def test_other_settings_do_not_go_on_with_a_run(
    settings: dict[str, Path], make_shards: Callable[..., Path], tmp_path: Path
) -> None:
    """Every setting that changes the result is named with both values; others may change."""
    command = ["pretrain", str(settings["pretrain"]), "machine.num_workers=0", "-o", "out"]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    line = refusal(*command, "mask.mask_ratio=0.25", "seed=7", "training.max_grad_norm=1")
    assert "out holds a run with other settings or data: " in line
    assert (
        "mask.mask_ratio was 0.5, now 0.25; seed was 0, now 7; training.max_grad_norm was None, now 1.0"
        in line
    )
    assert "choose another output folder" in line
    assert "mask.cell_size was not set, now 2" in refusal(*command, "mask={name: grid}")

    other = make_shards(tmp_path / "other", [["another caption"]] * 24)
    former = json.loads((tmp_path / "out" / "identity.json").read_text())["data"]["shards"]
    digests = f"data.shards was {former}, now {ShardSet(other).digest}"
    assert digests in refusal(*command, f"data.shards={other}")
    again = CliRunner().invoke(
        main, [*command, "machine.log_every_steps=1", "evaluation.protocols.few_shot.shots=[5]"]
    )
    assert again.exit_code == 0, again.output


def test_workers_that_a_cluster_has_no_room_for_are_refused_with_what_is_free(ray_cluster: None) -> None:
    import ray

    total = int(ray.cluster_resources()["CPU"])

    class Busy:
        def ready(self) -> bool:
            return True

    busy: Any = ray.remote(num_cpus=1)(Busy).remote()  # an actor has other methods than its class
    assert ray.get(busy.ready.remote())
    with pytest.raises(UserError, match="CPUs at once") as raised:
        connect_for_training(MachineConfig(num_workers=total, cpus_per_worker=2))
    assert (
        f"needs {2 * total} CPUs at once and the cluster has {total}, of which {total - 1} are free"
        in str(raised.value)
    )
    ray.kill(busy)
    connect_for_training(MachineConfig(num_workers=total))
    connect_for_training(MachineConfig(num_workers=(total, 2 * total)))
    with pytest.raises(UserError, match="CPUs at once"):
        connect_for_training(MachineConfig(num_workers=(total + 1, 2 * total)))


def test_a_node_has_room_for_whole_workers() -> None:
    """Packed one by one."""
    for cpus, gpus, per_worker in ((8, 2, 3), (8, 1, 3), (7.5, 4, 2), (1, 8, 2), (4, 0, 4)):
        for use_gpu in (False, True):
            left_cpus, left_gpus, count = cpus, gpus, 0
            while left_cpus >= per_worker and (left_gpus >= 1 or not use_gpu):
                left_cpus, left_gpus, count = left_cpus - per_worker, left_gpus - use_gpu, count + 1
            machine = MachineConfig(cpus_per_worker=per_worker, use_gpu=use_gpu)
            assert room_on_node(machine, {"CPU": cpus, "GPU": gpus}) == count


def refusal_of(*arguments: str) -> str:
    """The one line in which a command ends."""
    result = CliRunner().invoke(main, list(arguments))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("place", [["machine.storage=file"], ["-o", "file"], ["-o", "file/run"]])
def test_a_folder_that_cannot_be_written_is_told(settings: dict[str, Path], place: list[str]) -> None:
    Path("file").touch()
    line = refusal_of("pretrain", str(settings["pretrain"]), "machine.num_workers=0", *place)
    assert line.startswith("vlp: ")
    assert "file" in line
    assert line.endswith("move it, or choose another folder, such as by machine.storage or -o")


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_a_port_out_of_range_is_told(port: str) -> None:
    assert (
        refusal_of("ui", "--port", port) == f"vlp: --port: {port} is not a port; choose one from 1 to 65535"
    )


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"--port: cannot listen on 127.0.0.1:{port} (Address already in use); choose" in refusal_of(
            "ui", "--port", str(port)
        )
