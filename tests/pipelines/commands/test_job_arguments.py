"""Where the paths of a submitted command are, for a cluster on this machine and for one elsewhere."""

import re
from pathlib import Path

import pytest

from pipelines.commands.job_arguments import Places, find_command, given_settings, job_arguments
from pipelines.commands.main import main
from pipelines.compute.package import Package
from pipelines.config.errors import ConfigError, UserError
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder

STORAGE = Path("/mnt/shared")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a settings file that travels, and shards and results that do not."""
    for name in ("run.yaml", "keys.txt", "shards/00000.tar", "results/run/manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "run.yaml").write_text("name: run\ndata: {shards: shards}\n")
    (tmp_path / ".gitignore").write_text("shards/\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on_cluster(
    *arguments: str, is_here: bool = False, storage: Folder | None = None
) -> tuple[list[str], list[str]]:
    names, command, given = find_command(arguments, main)
    folder = Path.cwd() / "results" if is_here else STORAGE
    places = Places(Package.of(Path.cwd()), storage or LocalFolder(folder), folder, is_here)
    return job_arguments(names, command, given, places), places.outputs


def test_relative_outputs_go_to_the_storage_of_the_cluster() -> None:
    arguments, outputs = on_cluster("docfreq", "shards=s3://bucket/shards", "-o", "freqs")
    storage = f"machine.storage={STORAGE}"
    assert arguments == ["docfreq", "--output", "/mnt/shared/freqs", "shards=s3://bucket/shards", storage]
    assert outputs == ["/mnt/shared/freqs"]
    arguments, outputs = on_cluster("data", "merge", "/mnt/a", "/mnt/b", "-o", "all")
    assert arguments == ["data", "merge", "--output", "/mnt/shared/all", "/mnt/a", "/mnt/b"]
    assert outputs == ["/mnt/shared/all"]
    _, outputs = on_cluster("download", "url_list=/mnt/pairs.csv", "-o", "s3://bucket/all")
    assert outputs == ["s3://bucket/all"]


def test_relative_outputs_go_to_an_object_store_from_where_a_node_works() -> None:
    storage = open_folder("s3://bucket/vlp")
    arguments, outputs = on_cluster("docfreq", "shards=s3://bucket/shards", "-o", "freqs", storage=storage)
    assert arguments[:3] == ["docfreq", "--output", f"{STORAGE}/freqs"]
    assert arguments[-1] == "machine.storage=s3://bucket/vlp"
    assert outputs == ["s3://bucket/vlp/freqs"]
    arguments, outputs = on_cluster("download", "url_list=/mnt/pairs.csv", "-o", "all", storage=storage)
    assert arguments[:3] == ["download", "--output", "s3://bucket/vlp/all"]
    assert outputs == ["s3://bucket/vlp/all"]


def test_on_this_machine_every_path_is_what_it_is_here(folder: Path) -> None:
    arguments, outputs = on_cluster("pretrain", "run.yaml", "-o", "run", is_here=True)
    assert arguments[:4] == ["pretrain", "--output", f"{folder}/run", f"{folder}/run.yaml"]
    assert arguments[4:] == [f"data.shards={folder}/shards", f"machine.storage={folder}/results"]
    assert outputs == [f"{folder}/run"]
    arguments, _ = on_cluster("replay", "results/run", "--anomaly", is_here=True)
    assert arguments == ["replay", "--anomaly", f"{folder}/results/run"]
    arguments, _ = on_cluster("data", "index", "shards", is_here=True)
    assert arguments == ["data", "index", f"{folder}/shards", f"machine.storage={folder}/results"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("pretrain", "run.yaml"),
        ("docfreq", "shards=shards", "-o", "freqs"),
        ("data", "verify", "shards"),
        ("data", "merge", "shards", "/mnt/more", "-o", "all"),
        ("data", "index", "shards"),
        ("replay", "results/run"),
        ("evaluate", "checkpoint=results/run"),
    ],
)
def test_an_input_that_is_here_alone_is_refused_in_one_line(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"^(shards|results/run) is on this machine, and "):
        on_cluster(*arguments)


def test_what_travels_stays_as_it_is_written() -> None:
    arguments, _ = on_cluster("data", "subset", "/mnt/shards", "keys=keys.txt", "width>=256", "-o", "good")
    assert arguments[4:] == ["/mnt/shards", "keys=keys.txt", "width>=256"]
    arguments, _ = on_cluster("pretrain", "run.yaml", "data.shards=/mnt/shards", "name=results")
    assert arguments[1:4] == ["run.yaml", "data.shards=/mnt/shards", "name=results"]


def test_the_folders_of_a_selection_are_placed_like_all_others(folder: Path) -> None:
    arguments, outputs = on_cluster(
        *("data", "score", "/mnt/shards", "--checkpoint", "runs:/1a2b", "-o", "scored"),
        storage=open_folder("s3://bucket/vlp"),
    )
    assert arguments[:6] == [
        "data",
        "score",
        "--checkpoint",
        "runs:/1a2b",
        "--output",
        "s3://bucket/vlp/scored",
    ]
    assert arguments[6:] == ["/mnt/shards", "machine.storage=s3://bucket/vlp"]
    assert outputs == ["s3://bucket/vlp/scored"]
    chosen = ("data.selections=[shards,s3://bucket/b]", "data.where=[kept==true]")
    arguments, _ = on_cluster("pretrain", "data.shards=/mnt/shards", *chosen, is_here=True)
    assert f"data.selections=[{folder}/shards,s3://bucket/b]" in arguments
    with pytest.raises(UserError, match=r"^shards is on this machine, and "):
        on_cluster("pretrain", "data.shards=/mnt/shards", *chosen)


def test_a_folder_that_is_worked_in_is_never_the_copy(folder: Path) -> None:
    (folder / ".gitignore").write_text("")
    with pytest.raises(
        UserError, match=r"^shards is on this machine, and what is written there would be lost"
    ):
        on_cluster("data", "describe", "shards")
    assert on_cluster("data", "describe", "shards", is_here=True)[0][2] == f"{folder}/shards"


def test_a_mistake_costs_no_job() -> None:
    _, command, given = find_command(["pretrain", "run.yml"], main)
    with pytest.raises(ConfigError, match=r"no such file: run\.yml; did you mean run\.yaml\?|not a file"):
        given_settings(command, given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "run"], "`vlp submit` is not a job"),
        (["ui"], "open the address of machine.tracking_uri"),
        (["trian"], "trian is not a command to submit; valid: conf, convert-set, data, "),
        (["data"], "nothing is not a command to submit; valid: balance, describe, "),
    ],
)
def test_what_is_of_this_machine_is_no_job(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        find_command(arguments, main)
