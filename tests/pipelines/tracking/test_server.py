import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from pipelines.config.errors import ConfigError
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.journal import Delivered, Journal
from pipelines.tracking.server import ui
from pipelines.tracking.store import MlflowClient
from tests.paths import REPOSITORY


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(database: Path, port: int) -> subprocess.Popen[bytes]:
    """In a process group of its own, which Ctrl-C or a kill then reaches as a whole."""
    code = (
        "import sys; from pipelines.tracking.server import ui\n"
        "sys.exit(ui(f'sqlite:///{sys.argv[1]}', host='127.0.0.1', port=int(sys.argv[2])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(database), str(port)],
        cwd=REPOSITORY,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
            return
        except URLError:
            assert server.poll() is None
            time.sleep(0.1)


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Those started by a test, which are stopped after it."""
    started = []
    yield started
    for server in started:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def write(journal: Journal, steps: range) -> float:
    """Seconds that the slowest append took."""
    slowest = 0.0
    for step in steps:
        started = time.perf_counter()
        journal.metrics({"loss": step}, step=step)
        slowest = max(slowest, time.perf_counter() - started)
        time.sleep(0.01)
    return slowest


def test_a_server_that_dies_neither_stops_the_writer_nor_loses_a_metric(
    tmp_path: Path, servers: list, capsys: pytest.CaptureFixture[str]
):
    """Nor does the password of its address get anywhere."""
    database, port = tmp_path / "store/mlflow.db", free_port()
    address = f"http://user:Hunter2@127.0.0.1:{port}"
    journal = Journal(tmp_path / "run")
    journal.begin(name="run", tags={})
    growing = (
        journal.folder / "journal.jsonl"
    )  # its upload sends more than announced, which upsets the server
    journal.artifact(growing, folder="log")
    servers.append(start_server(database, port))
    wait_for(servers[0], port)
    with Delivery(tmp_path, tracking_uri=address, experiment="tests", poll_seconds=0.1) as delivery:
        slowest = write(journal, range(150))
        while Delivered.load(journal.folder, address).offset == 0:
            time.sleep(0.01)
        os.killpg(servers[0].pid, signal.SIGKILL)
        servers[0].wait()
        slowest = max(slowest, write(journal, range(150, 300)))
        assert Delivered.load(journal.folder, address).offset < growing.stat().st_size
        servers.append(start_server(database, port))
        wait_for(servers[1], port)
        journal.end("FINISHED")
        assert delivery.flush(120) == 0

    client = MlflowClient(address)
    (run,) = client.search_runs(["1"])
    metrics = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in metrics) == [(step, step) for step in range(300)]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "log")] == ["log/journal.jsonl"]
    assert "Hunter2" not in "".join(capsys.readouterr())
    assert [file for file in tmp_path.rglob("*") if file.is_file() and b"Hunter2" in file.read_bytes()] == []
    assert slowest < 0.5  # the machine may be busy; a call of the server waits for seconds
    os.killpg(servers[1].pid, signal.SIGINT)
    assert servers[1].wait(timeout=60) == 0


def test_only_a_sqlite_store_needs_a_server():
    with pytest.raises(ConfigError, match="open http://mlflow"):
        ui("http://mlflow:5000", host="127.0.0.1", port=5000)


def test_sigterm_ends_the_command_with_its_server(tmp_path: Path, servers: list[subprocess.Popen[bytes]]):
    port = free_port()
    command = [sys.executable, "-m", "pipelines", "ui", f"machine.storage={tmp_path}", f"--port={port}"]
    servers.append(subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE))
    wait_for(servers[0], port)
    servers[0].terminate()
    _, said = servers[0].communicate(timeout=60)
    assert servers[0].returncode == 128 + signal.SIGTERM
    assert b"ended by SIGTERM" in said
    assert b"Traceback" not in said
    with socket.socket() as probe:  # nothing of it listens any more
        assert probe.connect_ex(("127.0.0.1", port)) != 0
