"""What `vlp doctor` says of a machine that has all, and of those that lack something."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.config.machine import MachineConfig
from pipelines.doctor.doctor import examine_machine
from tests.paths import REPOSITORY
from tests.servers.ports import free_port
from tests.servers.ray_head import ray_head
from tests.servers.web import QuietHandler, WebServer, serving
from vlp.shards.storage.local import LocalFolder

WITHOUT_RAY = ("machine.num_workers=0", "machine.data_workers=0")


class Page(QuietHandler):
    def get(self) -> None:
        self.answer(200, {}, b"a page")


def doctor(*arguments: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, after others of a shell, in a mount namespace of its own if there are any."""
    command = [sys.executable, "-m", "pipelines", "doctor", *arguments]
    if before:
        command = ["unshare", "-m", "bash", "-c", f'{before} && exec "$@"', "bash", *command]
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=280)


def doctor_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, which need not load all that it loads again."""
    result = CliRunner().invoke(main, ["doctor", *arguments])
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def bad(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What is bad -> what is said of it."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr  # Ray itself warns there of a token
    return dict(
        line.removeprefix("bad  ").split(": ", 1) for line in done.stdout.splitlines() if "bad" in line[:4]
    )


def can_mount() -> bool:
    """Whether this process may have mounts of its own."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs the right to mount")


@pytest.mark.usefixtures("ray_cluster")
def test_a_laptop_that_has_all_is_good(tmp_path: Path) -> None:
    machine = MachineConfig(storage=LocalFolder(tmp_path / "results"), num_workers=2)
    with serving(WebServer(Page)) as server:
        findings = list(examine_machine(machine, url=f"http://127.0.0.1:{server.port}/"))
    assert [str(finding) for finding in findings if finding.verdict != "good"] == []
    said = {finding.what.split()[-1]: finding.said for finding in findings}
    assert re.match(r"gloo over 2 workers, \de-\d\d from the gradient of one", said["gradient"])
    assert "requests/s" in said["network"]
    assert {path.name for path in machine.work_folder.iterdir()} <= {
        "mlflow.db",
        "mlartifacts",
        ".mlflow.db.lock",
    }


def test_the_run_that_tries_mlflow_is_deleted(tmp_path: Path) -> None:
    done = doctor_here(*WITHOUT_RAY, f"machine.storage={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line[:4] for line in done.stdout.splitlines()} == {"good", "skip"}
    from pipelines.tracking.store import Store

    store = Store(MachineConfig(storage=LocalFolder(tmp_path)).mlflow_uri, "vlp")
    assert store.client.search_runs([store.experiment_id]) == []


def test_a_file_in_the_place_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = bad(doctor_here(*WITHOUT_RAY, f"machine.storage={tmp_path / 'file'}"))
    assert "a file is in the place of a folder: move it" in said["this machine storage"]
    assert "mend the storage of the nodes named above" in said["shared storage"]


@needs_mounts
def test_a_storage_that_is_read_only(tmp_path: Path) -> None:
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    said = bad(doctor(*WITHOUT_RAY, f"machine.storage={tmp_path}", before=mount))
    assert "Read-only file system; get the right to write there" in said["this machine storage"]


def test_limits_of_a_node_and_servers_that_are_not_there(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    settings = (*WITHOUT_RAY, f"machine.storage={tmp_path}", f"machine.tracking_uri={nowhere}")
    said = bad(doctor(*settings, "--url", nowhere, before="ulimit -Sn 600"))
    assert set(said) == {"this machine open files", "this machine network", "MLflow"}
    assert "`ulimit -n 65536` before Ray starts" in said["this machine open files"]
    assert said["this machine network"].startswith(f"{nowhere} does not answer: ")
    assert said["MLflow"].endswith("; start it, or name another in machine.tracking_uri")


def test_settings_that_are_not_of_the_machine_are_refused() -> None:
    done = doctor_here("training.batch_size=8")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "training is not a setting of this command" in done.stderr


@pytest.mark.slow
def test_a_wrong_token_and_too_few_cpus(tmp_path: Path) -> None:
    with ray_head(tmp_path, num_cpus=1, token="a" * 32) as head:
        settings = (
            f"machine.storage={tmp_path}",
            f"machine.ray_address={head.address}",
            "machine.num_workers=3",
        )
        wrong = doctor(*settings, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="b" * 32)
        right = doctor(*settings, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 32)
    assert "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in bad(wrong)["Ray"]
    assert list(bad(right)) == ["workers"]
    assert "; lower machine.num_workers" in bad(right)["workers"]


@contextmanager
def second_node(address: str, storage: Path, folder: Path) -> Iterator[None]:
    """A node of the cluster that has another file system in the place of the storage."""
    start = (
        f"mount -t tmpfs none {storage} && exec {Path(sys.executable).parent}/ray start --block --num-cpus=1"
    )
    start += f" --address={address} --node-ip-address=127.0.0.1"
    start += f" --disable-usage-stats --dashboard-agent-listen-port={free_port()}"
    log = (folder / "second.txt").open("w")
    node = subprocess.Popen(["unshare", "-m", "bash", "-c", start], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in (folder / "second.txt").read_text():
            assert node.poll() is None, (folder / "second.txt").read_text()
            assert time.monotonic() < deadline, (folder / "second.txt").read_text()
            time.sleep(0.2)
        yield
    finally:
        node.terminate()
        node.wait(timeout=120)


@needs_mounts
@pytest.mark.slow
def test_two_nodes_with_a_gradient_of_both_and_a_storage_of_each(tmp_path: Path) -> None:
    (storage := tmp_path / "storage").mkdir()
    with ray_head(tmp_path, num_cpus=1) as head, second_node(head.address, storage, tmp_path):
        done = doctor(
            f"machine.storage={storage}", f"machine.ray_address={head.address}", "machine.num_workers=2"
        )
    said = bad(done)
    assert list(said) == ["shared storage"], done.stdout
    assert len(re.findall(r"\S+ does not see what \S+ \(\w+\) wrote", said["shared storage"])) == 2
    assert "; mount one file system there on every node" in said["shared storage"]
    assert re.search(r"^good nodes: 2: ", done.stdout, re.MULTILINE)
    assert re.search(r"^good gradient: gloo over 2 workers", done.stdout, re.MULTILINE)
