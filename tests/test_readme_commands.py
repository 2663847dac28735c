"""The README's commands, as they stand there, with the machine file that they name."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.plugin_package import README

COMMANDS = [line.split("  ")[0] for line in re.findall(r"^vlp .*", README, re.MULTILINE)]
OURS = re.compile(
    r"\[(corpus|download|docfreq)\] (-> \S+|unchanged: \S+|done in \d+ s|[\d,]+/[\d,]+ (URLs|shards).*)"
    r"|\[pretrain \w+\] (calibrating the mask|\d+/\d+ steps.*)|\[sweep\] \d/4 trials done; .*"
    r"|\[sweep\] .* comes to what is tried already"
    r"|(best|config|train it): .*|[ ─]*|[ *]*(trial|\d{4}) .*| *anchor_ratio: after the last step *"
)
COMMAND_THEN_CPUS = """
import sys, time
import ray
from ray.util import placement_group_table
from pipelines.commands.main import main

def held():
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    return len(groups), ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)

try:
    main(sys.argv[1:])
finally:
    deadline = time.monotonic() + 60
    while any(held()) and time.monotonic() < deadline:
        time.sleep(0.1)
    print("still held: %d placement groups, %g CPUs" % held())
"""


def named(start: str) -> list[str]:
    """The commands of the README that begin so."""
    found = [command for command in COMMANDS if command.startswith(start)]
    assert found
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to work in, with the files that commands name."""
    (tmp_path / "conf").symlink_to(REPOSITORY / "conf")
    return tmp_path


def run(command: str, place: Path, *, script: str) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *shlex.split(command)[1:]],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", named("vlp sweep"))
def test_a_sweep_ends_with_a_winner_and_holds_nothing(command: str, place: Path) -> None:
    said = run(command, place, script=COMMAND_THEN_CPUS)
    assert re.search(r"^best: \S+ = 0\.\d+ with mask\.anchor_ratio=", said, re.MULTILINE)
    lines = said.splitlines()
    assert lines[-1] == "still held: 0 placement groups, 0 CPUs"
    assert [line for line in lines[:-1] if not OURS.fullmatch(line)] == []
    assert len(list((place / "results" / "sweeps").glob("*/trials/*"))) == 4


@pytest.mark.parametrize("command", [*named("vlp settings"), *named("vlp print-config")])
def test_what_only_looks_is_there_at_once(command: str, place: Path) -> None:
    main = "import sys; from pipelines.commands.main import main; main(sys.argv[1:])"
    assert len(run(command, place, script=main).splitlines()) > 5
