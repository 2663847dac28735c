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
from tests.servers.internet import in_a_network

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


def commands_of(section: str) -> list[list[str]]:
    """The commands of a section's shell blocks, as lists of words, but for those with a place to fill in."""
    (text,) = re.findall(rf"^##+ {section}\n(.*?)^##", README, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if "RUN_ID" not in line]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_about_data_does_what_it_says(place: Path) -> None:
    """But for training, of which only the data are looked at: it takes a GPU, and batches of thousands."""
    sections = ("Use your own data", "Download", "Look after shards", "Shards in an object store")
    commands = [command for section in sections for command in commands_of(section)]
    done = {" ".join(one.words): one for one in in_a_network(commands, place)}
    assert list(done) == [" ".join(command) for command in commands]
    for line, one in done.items():
        if line.startswith("vlp pretrain"):
            assert (one.code, one.output.count("\n")) == (2, 1), one.output
            assert re.search(r"training.batch_size is \d+ and .*shards holds 12 samples", one.output)
        else:
            assert one.code == 0, one.output
            said = [part for part in SAYS if re.search(part, line)]
            assert said, line
            assert all(re.search(SAYS[part], one.output) for part in said), one.output


SAYS = {
    r"vlp download url_list=pairs": r"12 of 13 URLs succeeded: ",
    r"vlp download url_list=(photos|data|saved)": r"12 of 12 URLs succeeded: shards",
    r"vlp docfreq": r"\[docfreq\]",
    r"vlp evaluate": r"dev/text_to_image/recall@1",
    r"vlp data verify": r"shards: whole",
    r"vlp data describe": r"\| images \| 12 \|",
    r"vlp data index": r"12 samples in 1 tars: laion",
    r"vlp data merge": r"12 samples, 12 repeated URLs left out",
    r"vlp data subset": r"5 samples of 5 rows taken: good",
}
"""What a command begins with -> what it has to say."""


@pytest.mark.parametrize("command", [*named("vlp settings"), *named("vlp print-config")])
def test_what_only_looks_is_there_at_once(command: str, place: Path) -> None:
    main = "import sys; from pipelines.commands.main import main; main(sys.argv[1:])"
    assert len(run(command, place, script=main).splitlines()) > 5
