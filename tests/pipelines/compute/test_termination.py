"""The first SIGTERM ends work in order, the second one at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.tracking.journal import Journal
from tests.paths import REPOSITORY

CODE = """
import time
from contextlib import nullcontext
from pipelines.compute.termination import ending_softly, heeding_sigterm
try:
    with heeding_sigterm():
        with ending_softly(lambda: print("asked", flush=True)) if {softly} else nullcontext():
            print("ready", flush=True)
            while {softly}:
                time.sleep(0.01)
            time.sleep(600)
except KeyboardInterrupt as error:
    print(type(error).__name__, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("softly", "said"), [(True, "asked"), (False, "Terminated")])
def test_the_second_signal_ends_at_once(softly: bool, said: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE.format(softly=softly)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == f"{said}\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


AT_RAY = """
import os, signal, threading, time
import ray
from pipelines.commands.group import Vlp
from pipelines.compute.cluster import connect
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal, ending
from pathlib import Path

main = Vlp()

@main.command("wait")
def wait():
    connect(MachineConfig(), min_cpus=1)
    journal = Journal(Path("journal"))
    journal.begin(name="run", tags={})
    with ending(journal):
        threading.Timer(1, os.kill, [os.getpid(), signal.SIGTERM]).start()
        ray.get(ray.remote(lambda: time.sleep(600)).remote())

main(["wait"])
"""


def test_sigterm_is_known_again_where_it_comes_while_ray_is_waited_for(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", AT_RAY], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "vlp: ended by SIGTERM; the same command goes on from here\n"
    records = list(Journal(tmp_path / "journal").read())
    assert [record.fields["status"] for record in records if record.kind == "end"] == ["KILLED"]
    assert {"stop_reason": "SIGTERM"} in [record.fields.get("tags") for record in records]


def test_work_that_was_asked_to_end_is_terminated_when_it_has() -> None:
    code = (
        "import os, signal\n"
        "from pipelines.compute.termination import ending_softly, heeding_sigterm\n"
        "with heeding_sigterm(), ending_softly(lambda: print('asked')):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "asked\ndone\n"
    assert done.stderr.splitlines()[-1].endswith("Terminated")
