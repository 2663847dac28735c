"""The first SIGTERM ends work in order, the second one at once."""

import signal
import subprocess
import sys

import pytest

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
