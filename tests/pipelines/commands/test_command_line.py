"""The command line answers at once, and a user's mistake is one line and exit code 2, before any work."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines.commands.main import main
from tests.paths import REPOSITORY

CONF = REPOSITORY / "conf"
RUN = str(CONF / "run" / "flip.yaml")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def vlp(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def mistake(*arguments: Any) -> str:
    """The one line of a mistake."""
    result = vlp(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stderr.startswith("vlp: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("command", ["", *main.commands])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = vlp(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"vlp {command or 'run'}" in result.stdout
    own = ("conf", "data", "from-open-clip", "jobs", "replay", "runs", "settings", "submit")
    takes_settings = command not in ("", *own)
    assert ("machine.*" in result.stdout) == takes_settings
    assert ("`vlp settings" in result.stdout) == takes_settings


def test_help_and_mistakes_in_settings_load_neither_torch_nor_ray() -> None:
    """In a process of its own, as a user starts it; also no traceback there."""
    code = "import sys; from pipelines.commands.main import main; main(sys.argv[1:], standalone_mode=False); "
    heavy = "print(sorted({'torch', 'ray', 'mlflow', 'timm', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    shown = subprocess.run(
        [sys.executable, "-c", code + heavy, "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert shown.stdout.splitlines()[-1] == "[]"
    wrong = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines", "pretrain", "nowhere.yaml"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    lines = [line for line in wrong.stderr.splitlines() if not line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in wrong.stderr.splitlines()}
    assert (wrong.returncode, lines) == (2, ["vlp: no such file: nowhere.yaml"])
    assert "yaml" in imported
    assert not {"torch", "ray", "mlflow"} & imported


PARSED = {
    "run": ["conf/run/flip.yaml", "training.length.flops=1e18"],
    "sweep": ["conf/sweep/anchor_ratio.yaml"],
    "pipeline": ["conf/pipeline/demo.yaml"],
    "download": ["url_list=urls.csv"],
}
HEAVY = (
    "timm",
    "torchvision",
    "ray",
    "mlflow",
    "pandas",
    "matplotlib",
    "open_clip",
    "transformers",
    "triton",
)


def heavy_modules_of(code: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, which prints what it has loaded in the end that takes long."""
    code += f"\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)


def test_settings_are_parsed_without_what_takes_long_to_import() -> None:
    """All kinds in one process, as starting one takes seconds."""
    done = heavy_modules_of(f"""
import sys
from pipelines.config.machine import read_settings
from pipelines.config.settings import build
from pipelines.ingest.settings import DownloadConfig
from pipelines.sweeps.settings import SweepConfig
from pipelines.workflow.plan import PipelineConfig, Plan
from vlp.run import RunConfig

schemas = {{"run": RunConfig, "sweep": SweepConfig, "pipeline": PipelineConfig, "download": DownloadConfig}}
for kind, arguments in {PARSED!r}.items():
    layers, _ = read_settings(arguments)
    assert build(schemas[kind], layers)
    if kind == "pipeline":
        Plan.read(layers).check()
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


MISSPELT = {
    "pretrain": ["conf/run/flip.yaml"],
    "run": ["conf/pipeline/demo.yaml"],
    "sweep": ["conf/sweep/anchor_ratio.yaml"],
    "download": ["url_list=x", "-o", "out"],
    "print-config": ["conf/run/flip.yaml"],
}


def test_a_misspelt_key_is_answered_without_what_takes_long_to_import() -> None:
    """By every command, in one process."""
    done = heavy_modules_of(f"""
import sys
from pipelines.commands.main import main

for command, arguments in {MISSPELT!r}.items():
    try:
        main([command, *arguments, "mask.mask_ratoi=.5"])
    except SystemExit as ended:
        print(command, ended.code)
""")
    assert done.stdout.splitlines() == [*(f"{command} 2" for command in MISSPELT), "[]"], done.stderr
    assert done.stderr.count("is not a setting") == done.stderr.count("\n") == len(MISSPELT)


SETTINGS_MISTAKES = {
    "misspelt key": (["pretrain", RUN, "mask.mask_ration=0.5"], "did you mean mask.mask_ratio?"),
    "out of range": (["pretrain", RUN, "mask.mask_ratio=1.5"], "mask.mask_ratio"),
    "missing file": (["run", "nowhere.yaml"], "no such file: nowhere.yaml"),
    "no settings": (["run"], "is missing"),
    "no yaml": (["download", "url_list=[", "-o", "out"], "url_list"),
    "folder without shards": (["pretrain", RUN, "data.shards=."], "is not a folder of shards"),
    "docfreq without shards": (["docfreq", "shards=nowhere", "-o", "out"], "is not a folder of shards"),
    "url list": (["download", "url_list=nowhere.csv", "-o", "out"], "nowhere.csv"),
    "no checkpoint": (["evaluate", "checkpoint=nowhere", "evaluation={}"], "nowhere"),
    "machine": (["run", CONF / "pipeline" / "demo.yaml", "machine.num_workers=-1"], "machine.num_workers"),
    "nothing known": (["print-config", "seed=1"], "objective"),
}


@pytest.mark.parametrize("kind", SETTINGS_MISTAKES)
def test_a_mistake_in_the_settings_is_one_line(kind: str, tmp_path: Path) -> None:
    arguments, expected = SETTINGS_MISTAKES[kind]
    assert expected in mistake(*arguments)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "results" / "pretrain").exists()


def test_a_list_without_its_columns_leaves_no_shards(tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text("link,caption\nhttp://x/,a\n")
    line = mistake("download", "url_list=urls.csv", "-o", "out")
    assert "no column 'url'; valid: caption, link" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["pretrain", CONF / "pipeline" / "demo.yaml"], "vlp run "),
        (["run", RUN], "vlp pretrain "),
        (["pretrain", RUN, "--steps", "10"], "training.length.steps=100"),
        (["pretrain", RUN, "mask.mask_ratio", "0.5"], "mask.mask_ratio=0.5"),
        (["pretrain", RUN, "data.shards=x/{00000..00005}.tar"], "name the folder"),
        (["pretrain", RUN, "objective.name=superclass"], "name=flip_superclass"),
    ],
)
def test_what_is_meant_for_another_place_is_answered_with_the_right_one(
    arguments: list[Any], remedy: str
) -> None:
    assert remedy in mistake(*arguments)


RUN_MISTAKES = {
    "fewer samples than a batch": (["training.batch_size=25"], "24 samples: fewer than one batch"),
    "uneven parts": (["training.batch_size=9", "machine.num_workers=2"], "multiple of machine.num_workers"),
    "evaluation": (
        ["training.batch_size=8", "evaluation.retrieval.dev=no.parquet"],
        "no such file: no.parquet",
    ),
    "offline table": (
        ["training.batch_size=8", "name=other", "objective.name=superclass", "objective.idf=offline"],
        "set data.document_frequency, made with `vlp docfreq`",
    ),
    "table": (["training.batch_size=8", "data.document_frequency=no.parquet"], "no such file: no.parquet"),
}


@pytest.mark.parametrize("kind", RUN_MISTAKES)
def test_a_run_that_cannot_work_starts_nothing(kind: str, shards: Path, tmp_path: Path) -> None:
    overrides, expected = RUN_MISTAKES[kind]
    assert expected in mistake("pretrain", RUN, f"data.shards={shards}", *overrides, "-o", "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "file", sorted(CONF.glob("[rs]*/*.yaml")), ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_a_printed_config_is_a_file_of_the_same_config(file: Path, tmp_path: Path) -> None:
    first = vlp("print-config", file, "machine.num_workers=2", "name=other")
    assert first.exit_code == 0, first.stderr
    (tmp_path / "printed.yaml").write_text(first.stdout)
    assert vlp("print-config", "printed.yaml").stdout == first.stdout
    printed = yaml.safe_load(first.stdout)
    assert (printed["name"], printed["machine"]["num_workers"]) == ("other", 2)


def test_a_printed_pipeline_is_a_file_of_the_same_pipeline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(REPOSITORY)  # a pipeline names the files of its runs
    first = vlp("print-config", "conf/pipeline/demo.yaml")
    assert first.exit_code == 0, first.stderr
    (tmp_path / "printed.yaml").write_text(first.stdout)
    assert vlp("print-config", tmp_path / "printed.yaml").stdout == first.stdout


def test_a_printed_download_is_a_file_of_the_same_download(tmp_path: Path) -> None:
    first = vlp("print-config", "url_list=urls.csv", "disallowed_header_directives=[]")
    (tmp_path / "printed.yaml").write_text(first.stdout)
    assert vlp("print-config", "printed.yaml").stdout == first.stdout
    assert yaml.safe_load(first.stdout)["max_aspect_ratio"] == float("inf")


def test_a_download_without_one_success_ends_with_an_exit_code_and_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("ftp://x.org/a.jpg\nno address\n")
    result = vlp("download", "url_list=urls.txt", "machine.data_workers=0", "-o", "out")
    assert result.exit_code == 1
    assert "0 of 2 URLs succeeded" in result.stdout
    assert result.stderr.splitlines()[-1] == "vlp: every URL failed; out/outcomes.csv counts the reasons"
    assert "invalid_url,2," in (tmp_path / "out" / "outcomes.csv").read_text()
