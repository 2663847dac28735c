"""The manual's commands, as they stand there, with the machine file that they name."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipelines.commands.group import read
from pipelines.commands.main import main
from pipelines.commands.schemas import all_settings, config_of, parse_any
from pipelines.config.catalog import find
from pipelines.config.machine import MachineConfig
from pipelines.config.open_clip import translate
from pipelines.config.settings import Layers, build, check_still_named
from pipelines.sweeps.settings import SweepConfig
from pipelines.workflow.plan import LATER, Plan
from tests.manual import blocks, command_lines, section
from tests.paths import REPOSITORY
from tests.plugin_package import forgotten, write_package
from tests.servers.internet import in_a_network
from vlp.run import RunConfig

LINES = command_lines()
COMMANDS = [line.removeprefix(".venv/bin/") for line in LINES if re.match(r"(\.venv/bin/)?vlp ", line)]
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
    """The commands of the manual that begin so."""
    found = [command for command in COMMANDS if command.startswith(start)]
    assert found
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to work in, with the files that commands name."""
    (tmp_path / "conf").symlink_to(REPOSITORY / "conf")
    return tmp_path


@pytest.fixture
def with_plugins(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place as the working folder, with the manual's plug-ins, which are gone afterwards."""
    shutil.copy(REPOSITORY / "conf" / "run" / "clip.yaml", place / "run.yaml")
    monkeypatch.chdir(write_package(place).resolve())
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    with forgotten():
        yield place


def check_plan(layers: Layers, _: MachineConfig) -> None:
    """A pipeline with all of its runs, wherever its data may be."""
    Plan.read(layers).runs(LATER, LATER)


def check_run(layers: Layers, _: MachineConfig) -> None:
    """A run that could be trained."""
    build(RunConfig, layers)
    check_still_named(layers)


CHECKS: Mapping[str, Callable[[Layers, MachineConfig], object]] = {
    "run": check_plan,
    "pretrain": check_run,
    "plan": check_plan,
    "print-config": parse_any,
}


def check(words: list[str]) -> None:
    """Parse a command's options by the command line's own parser, and its settings by its own schema."""
    command: click.Command = main
    name = words[0]
    while isinstance(command, click.Group) and words[:1] and words[0] in command.commands:
        name = words[0]
        command, words = command.commands[name], words[1:]
    with command.make_context(name, list(words)) as context:
        if name == "submit":
            check([word for word in context.params["arguments"] if word not in ("--address", "--measure")])
        elif name == "from-open-clip":
            translate(context.params["arguments"])
        elif name == "settings":
            assert find(context.params["key"], all_settings())
        elif "settings" in context.params:
            layers, machine = read(context.params["settings"])
            if name in CHECKS:
                CHECKS[name](layers, machine)
            elif config := config_of(name):
                build(config, layers)
            else:
                assert not layers.merged()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_and_its_settings_are_settings(command: str, with_plugins: Path) -> None:
    check(shlex.split(command.replace("$DATA", "data"))[1:])


def test_every_line_of_a_shell_block_is_a_command_that_is_tried() -> None:
    others = {line.split()[0] for line in LINES} - {"vlp", ".venv/bin/vlp"}
    assert others <= {"make", "python"}
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert {line.split()[1] for line in LINES if line.startswith("make ")} <= set(targets)


def test_the_settings_of_a_yaml_block_are_those_of_a_sweep(with_plugins: Path) -> None:
    (block,) = blocks("yaml")
    config = build(SweepConfig, parsed(block, run="flip", name="mine", pipeline="conf/pipeline/demo.yaml"))
    assert config.num_trials == 20


def parsed(text: str, **more: Any) -> Layers:
    """The settings of a block of a page, with what it leaves out."""
    return Layers().add(yaml.safe_load(text) | more, "the manual")


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


def commands_of(page: str, title: str) -> list[list[str]]:
    """The commands of a section's shell blocks, as lists of words, but for those with a place to fill in."""
    lines = command_lines(section(page, title))
    return [shlex.split(line) for line in lines if "RUN_ID" not in line]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_about_data_does_what_it_says(place: Path) -> None:
    """But for training, of which only the data are looked at: it takes a GPU, and batches of thousands."""
    titles = ("Download", "Look after shards", "Choose samples", "Shards in an object store")
    commands = commands_of("start", "Your own data")
    commands += [command for title in titles for command in commands_of("data", title)]
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
    r"vlp data balance": r"\| images \| 12 \| 12 \| 100.0% \|",
    r"vlp data score": r"\| `words>=2` \| 12 \| 100.0% \|",
    r"vlp data subset shards keys": r"5 samples of 5 rows taken: good",
    r"vlp data subset shards selection": r"12 samples of 12 rows taken: basic",
}
"""What a command begins with -> what it has to say."""


@pytest.mark.parametrize("command", [*named("vlp settings"), *named("vlp print-config")])
def test_what_only_looks_is_there_at_once(command: str, place: Path) -> None:
    main = "import sys; from pipelines.commands.main import main; main(sys.argv[1:])"
    assert len(run(command, place, script=main).splitlines()) > 5
