"""Jobs on a cluster that was started as a user would: `ray start --head`."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.servers.ports import free_port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Dashboard address of a one-node cluster with processes of its own."""
    port, dashboard = free_port(), free_port()
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--disable-usage-stats", "--include-log-monitor=False"]
    log = (tmp_path_factory.mktemp("ray") / "log.txt").open("w")
    head = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"RAY_AUTH_MODE": "disabled"})
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 60
    while not answers(f"{address}/api/version"):
        assert head.poll() is None, Path(log.name).read_text()
        assert time.monotonic() < deadline, Path(log.name).read_text()
        time.sleep(0.2)
    yield address
    head.terminate()
    head.wait(timeout=30)


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except OSError:
        return False


def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", "submit", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=280,
    )


def test_a_job_shows_its_output_and_returns_0(cluster):
    result = submit("--address", cluster, "print-config", "conf/run/flip.yaml", "mask.mask_ratio=0.75")
    assert result.returncode == 0, result.stderr
    assert "mask_ratio: 0.75" in result.stdout


def test_a_job_that_fails_passes_on_its_message_and_exit_code(cluster, tmp_path):
    result = submit("--address", cluster, "evaluate", f"checkpoint={tmp_path / 'nothing'}", "evaluation={}")
    assert result.returncode == 2, result.stdout
    assert "is neither a checkpoint nor a finished run" in result.stdout


def test_a_mistake_in_the_settings_is_found_before_a_job_is_made():
    result = submit("--address", "http://127.0.0.1:9", "run", "conf/pipeline/dmeo.yaml")
    assert (result.returncode, result.stdout) == (2, "")
    assert "did you mean conf/pipeline/demo.yaml?" in result.stderr


def test_a_missing_cluster_is_one_line():
    result = submit("--address", "http://127.0.0.1:9", "print-config", "conf/run/flip.yaml")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "no Ray cluster answers at http://127.0.0.1:9" in result.stderr
