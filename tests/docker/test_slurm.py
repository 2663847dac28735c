"""The script for Slurm, run for real on this machine, which stands for its nodes.

Slurm's own commands are replaced by the least that they do: `srun` runs a command, `scontrol` names nodes.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.paths import REPOSITORY

SCRIPT = REPOSITORY / "docker" / "slurm" / "vlp.sbatch"
SRUN = '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/sh\n[ "$1" = show ] && echo 127.0.0.1 || echo "$@" >> "$REQUEUED"\n'


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of one node."""
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}:{tmp_path}",
        "REQUEUED": str(tmp_path / "requeued"),
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "VLP_PYTHON": sys.executable,
    }


def test_a_missing_environment_is_one_line(slurm: dict[str, str]) -> None:
    job = subprocess.run(
        ["bash", SCRIPT], env=slurm | {"VLP_PYTHON": "nowhere/python"}, capture_output=True, text=True
    )
    assert job.returncode == 2
    assert job.stderr.count("\n") == 1
    assert "set VLP_PYTHON" in job.stderr


@pytest.mark.slow
def test_a_command_runs_on_the_nodes_and_what_was_started_ends(slurm: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "joined.py").write_text("import ray\nray.init('auto')\nprint('nodes', len(ray.nodes()))\n")
    arguments = ["print-config", "conf/run/flip.yaml", "plugins=[joined]"]
    job = subprocess.run(
        ["bash", SCRIPT, *arguments], cwd=REPOSITORY, env=slurm, capture_output=True, text=True, timeout=280
    )
    assert job.returncode == 0, job.stderr
    assert "nodes 1" in job.stdout
    assert not (tmp_path / "requeued").exists()
    assert not Path(f"/tmp/vlp-{os.getpid()}").exists()
    port = f"--gcs_server_port={20000 + os.getpid() % 10000}"
    assert not [one for one in psutil.process_iter(["cmdline"]) if port in (one.info["cmdline"] or [])]


@pytest.mark.slow
def test_the_end_of_its_time_ends_the_command_and_asks_for_another_job(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "waiting.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)\n")
    job = subprocess.Popen(
        ["bash", SCRIPT, "print-config", "conf/run/flip.yaml", "plugins=[waiting]"],
        cwd=REPOSITORY,
        env=slurm,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert job.stdout
    while "here" not in (line := job.stdout.readline()):
        assert line or job.poll() is None
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=120) == 143
    assert (tmp_path / "requeued").read_text().split()[0] == "requeue"
