"""Jobs on a cluster that was started as a user would: `ray start --head`."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.commands.job_arguments import STAYS_HERE
from pipelines.commands.main import main
from pipelines.config.settings import to_dict
from tests.paths import REPOSITORY
from tests.pipelines.workflow.test_output import PIPELINE
from tests.servers.ray_head import TOKEN, ray_head
from vlp.run import RunConfig


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Dashboard address of a one-node cluster with processes of its own, which asks for a token."""
    with ray_head(tmp_path_factory.mktemp("ray"), token=TOKEN) as head:
        yield head.dashboard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with a settings file and no code."""
    shutil.copy(REPOSITORY / "conf" / "run" / "flip.yaml", tmp_path)
    return tmp_path


def environment(token: str = TOKEN) -> dict[str, str]:
    return os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *arguments]


def vlp(*arguments: str, cwd: Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(token), timeout=280
    )


@pytest.mark.slow
def test_a_job_shows_its_output_and_returns_0(cluster: str, folder: Path) -> None:
    """The job that fails shows its output and passes on its exit code in the same way."""
    result = vlp(
        "submit", "--address", cluster, "print-config", "flip.yaml", "mask.mask_ratio=0.75", cwd=folder
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "mask_ratio: 0.75" in result.stdout


def test_a_job_that_fails_passes_on_its_message_and_exit_code(cluster: str, folder: Path) -> None:
    arguments = ("evaluate", "checkpoint=nothing", "evaluation={}")
    result = vlp("submit", "--address", cluster, *arguments, cwd=folder)
    assert result.returncode == 2, result.stdout
    assert "is neither a checkpoint nor a finished run" in result.stdout


def test_a_wrong_or_missing_token_is_one_line(cluster: str, folder: Path) -> None:
    for token in ("f" * 32, ""):
        result = vlp("jobs", "list", "--address", cluster, cwd=folder, token=token)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert "RAY_AUTH_TOKEN" in result.stderr


def test_a_mistake_in_the_settings_is_found_before_a_job_is_made(folder: Path) -> None:
    result = vlp("submit", "--address", "http://127.0.0.1:9", "pretrain", "flop.yaml", cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert "did you mean flip.yaml?" in result.stderr


def test_a_missing_cluster_is_one_line(folder: Path) -> None:
    result = vlp("submit", "--address", "http://127.0.0.1:9", "print-config", "flip.yaml", cwd=folder)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "no Ray cluster answers at http://127.0.0.1:9" in result.stderr


@pytest.fixture
def endless(folder: Path) -> list[str]:
    """A command that runs until it is stopped: the first import of its plug-in waits for a file."""
    wait = "import os, time\nprint('here')\nwhile not os.path.exists(os.environ['DONE']): time.sleep(0.1)\n"
    (folder / "waiting.py").write_text(
        wait.replace("os.environ['DONE']", repr(str(folder / "results" / "done")))
    )
    return ["print-config", "flip.yaml", "plugins=[waiting]"]


def begin(cluster: str, folder: Path, arguments: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A submitted job that has begun, and its name."""
    submit = subprocess.Popen(
        command("submit", "--address", cluster, *arguments),
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
        # Ctrl-C reaches it also where these tests run in the background of a shell, which has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert submit.stdout is not None
    first = submit.stdout.readline()
    found = re.match(r"\[submit\] job (\S+) on", first)
    assert found, first + submit.stdout.read()
    while submit.stdout.readline() != "here\n":
        assert submit.poll() is None
    return submit, found[1]


@pytest.mark.slow
def test_the_same_command_follows_the_job_that_runs(cluster: str, folder: Path, endless: list[str]) -> None:
    first, name = begin(cluster, folder, endless)
    second, again = begin(cluster, folder, endless)
    assert again == name
    (folder / "results").mkdir()
    (folder / "results" / "done").touch()
    assert [job.wait(timeout=120) for job in (first, second)] == [0, 0]
    third = vlp("submit", "--address", cluster, *endless, cwd=folder)  # it has ended: begun anew
    assert f"job {name}-2 on" in third.stdout


@pytest.mark.slow
def test_interrupts_leave_the_job_and_it_can_be_stopped(
    cluster: str, folder: Path, endless: list[str]
) -> None:
    for how, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        submit, name = begin(cluster, folder, endless)
        submit.send_signal(how)
        said, _ = submit.communicate(timeout=60)
        assert submit.returncode == code
        assert f"vlp jobs attach {name} --address {cluster}" in said
    listed = vlp("jobs", "list", "--address", cluster, cwd=folder).stdout
    assert re.search(rf"^{name} +RUNNING ", listed, re.MULTILINE)
    assert "here" in vlp("jobs", "logs", name, "--address", cluster, cwd=folder).stdout
    assert vlp("jobs", "stop", name, "--address", cluster, cwd=folder).returncode == 0
    assert vlp("jobs", "attach", name, "--address", cluster, cwd=folder).returncode == 143
    unknown = vlp("jobs", "logs", "nothing", "--address", cluster, cwd=folder)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)


class Example(NamedTuple):
    """A command, and what it leaves in the folder."""

    arguments: str
    makes: str = ""
    code: int = 0


BAD = "results/bad/bad_steps/step_0000002"
EXAMPLES = [
    Example(
        "download url_list=photos input_format=images image_size=32 machine.data_workers=0 -o got", "got"
    ),
    Example("data index got", "got/00000.parquet"),
    Example("data verify got"),
    Example("data describe got", "got/card"),
    Example("data subset got width>=8 -o good", "good/manifest.json"),
    Example("data merge got good -o all", "all/manifest.json"),
    Example("docfreq shards=got machine.data_workers=0 -o freqs", "freqs/document_frequency.parquet"),
    Example("fit-codes shards=got target.num_codes=4 -o palette.npy", "palette.npy"),
    Example("pretrain tiny.yaml machine.num_workers=0 -o trained", "trained/manifest.json"),
    Example("export checkpoint=trained --format safetensors -o exported", "exported"),
    Example("evaluate checkpoint=trained evaluation.retrieval.dev=dev.parquet -o metrics", "metrics"),
    Example("pretrain tiny.yaml optimizer.lr=1e30 machine.num_workers=0 -o results/bad", BAD, 1),
    Example(f"replay {BAD}"),
    Example("run small.yaml machine.num_workers=0 machine.data_workers=0", "results/small/README.md"),
    Example("runs list"),
    Example("runs compare clip cluster_rgb"),
    Example("runs lineage clip"),
    Example("runs register clip best"),
    Example("sweep sweep.yaml", "results/sweeps"),
    Example("print-config tiny.yaml"),
    Example("settings mask"),
    Example("doctor machine.num_workers=1"),
    Example("plan tiny.yaml"),
]


def leaves(group: click.Group, above: str = "") -> Iterator[str]:
    for name, one in group.commands.items():
        yield from leaves(one, f"{name} ") if isinstance(one, click.Group) else [above + name]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_works_as_a_job(
    cluster: str, folder: Path, tiny_run: Callable[..., RunConfig], tiny_world: Path
) -> None:
    names = [name for name in leaves(main) if name.split()[0] not in STAYS_HERE]
    untried = [
        name for name in names if not any(f"{one.arguments} ".startswith(f"{name} ") for one in EXAMPLES)
    ]
    assert untried == []
    write_inputs(folder, tiny_run(data={"shards": "got"}), tiny_world)
    for example in EXAMPLES:
        result = vlp("submit", "--address", cluster, *example.arguments.split(), cwd=folder)
        assert result.returncode == example.code, (example, result.stdout, result.stderr)
        assert (folder / example.makes).exists(), (example, result.stdout)


def write_inputs(folder: Path, run: RunConfig, tiny_world: Path) -> None:
    """Images with captions, a run, a pipeline, a sweep of it and an evaluation set."""
    (folder / "photos").mkdir()
    for place, image in enumerate(sorted((tiny_world / "train").glob("*.jpg"))[:24]):
        (folder / "photos" / f"{place}.jpg").write_bytes(image.read_bytes())
        (folder / "photos" / f"{place}.txt").write_text(f"a red circle number {place}")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(to_dict(run)))
    (folder / "small.yaml").write_text(PIPELINE)
    shutil.copytree(REPOSITORY / "conf" / "run", folder / "conf" / "run")
    sweep = {
        "name": "ratio",
        "pipeline": "small.yaml",
        "run": "cluster_rgb",
        "overrides": {"evaluation.every_steps": 2},
        "space": {"mask.anchor_ratio": {"uniform": [0.1, 0.3]}},
        "metrics": {"val/tiny_world/text_to_image/recall@1": "max"},
        "num_trials": 1,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    pq.write_table(pq.read_table(tiny_world / "retrieval.parquet"), folder / "dev.parquet")
