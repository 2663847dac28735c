"""Ray on this machine, where it is slow to start; and a cluster that lets nobody in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.compute.cluster import check_gpus_here
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from tests.paths import REPOSITORY
from tests.servers.ray_head import ray_head

CONNECT = """
import contextlib, sys, threading, time
import psutil
from pipelines.compute.cluster import connect
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig

def hold(name, num_held):
    held = set()
    while len(held) < num_held:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid not in held and name in " ".join(process.cmdline()[:3]):
                    process.suspend()
                    held.add(process.pid)
        time.sleep(0.001)

threading.Thread(target=hold, args=(sys.argv[1], int(sys.argv[2])), daemon=True).start()
try:
    connect(MachineConfig())
except UserError as error:
    print(f"refused: {error}")
else:
    print("started")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["raylet/raylet", "dashboard/dashboard.py"])
@pytest.mark.parametrize(("num_held", "expected"), [(1, "started"), (2, "refused: Ray did not start")])
def test_a_part_of_ray_that_is_late_is_tried_once_more(part: str, num_held: int, expected: str) -> None:
    """Ray waits for itself for half a minute and more, which nothing sets."""
    command = [sys.executable, "-c", CONNECT, part, str(num_held)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)
    assert len((done.stdout + done.stderr).splitlines()) == 1


def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `RAY_ADDRESS=` in a shell or a job's description leaves it."""
    monkeypatch.setenv("RAY_ADDRESS", "")
    for address in (None, ""):
        with pytest.raises(UserError, match=r"machine\.use_gpu .* this machine has 0"):
            check_gpus_here(MachineConfig(ray_address=address, use_gpu=True), 10_000)


TOKEN_CODE = """
import sys
from pipelines.compute.cluster import connect
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
try:
    connect(MachineConfig(ray_address=sys.argv[1]))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_cluster_with_another_token_is_told(tmp_path: Path) -> None:
    with ray_head(tmp_path, num_cpus=1, token="a" * 32) as head:
        joined = subprocess.run(
            [sys.executable, "-c", TOKEN_CODE, head.address],
            cwd=REPOSITORY,
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 32},
            capture_output=True,
            text=True,
        )
        submitted = subprocess.run(
            [sys.executable, "-m", "pipelines", "submit", "--address", head.dashboard, "settings", "mask"],
            cwd=REPOSITORY,
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 32},
            capture_output=True,
            text=True,
        )
    assert joined.stdout.startswith(f"machine.ray_address: {head.address} answers, and takes no connection")
    assert submitted.returncode == 2
    (line,) = submitted.stderr.splitlines()
    assert line.startswith(f"vlp: --address: the cluster at {head.dashboard} asks for its token, and")
