"""A release: its sdist and wheel, installed where the repository is not."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipelines.commands.main import main
from tests.paths import REPOSITORY
from vlp import __version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the sdist as a package index gets both."""
    source = tmp_path_factory.mktemp("source")
    for part in ("vlp", "pipelines", "conf"):
        shutil.copytree(REPOSITORY / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / file, source)
    output = source / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), at=source)
    assert len(list(output.glob("vlp-*.tar.gz"))) == 1
    (wheel,) = output.glob("vlp-*.whl")
    return wheel


def run(*command: str, at: Path) -> str:
    """What a command prints that does not see the repository."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=at, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_an_installed_release_brings_its_command_and_its_files(wheel: Path, tmp_path: Path) -> None:
    """The packages that it needs are those of this environment."""
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    packages = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", at=tmp_path
    ).strip()
    needed = [path for path in sys.path if path.endswith("site-packages")]
    (Path(packages) / "needed.pth").write_text("\n".join(needed))
    run(python, "-m", "pip", "install", "--no-deps", "--force-reinstall", str(wheel), at=tmp_path)
    vlp = str(tmp_path / "env" / "bin" / "vlp")
    assert "vlp, version" in run(vlp, "--version", at=tmp_path)
    run(vlp, "conf", "copy", at=tmp_path)
    copied = {file.relative_to(tmp_path) for file in (tmp_path / "conf").rglob("*.yaml")}
    assert copied == {file.relative_to(REPOSITORY) for file in (REPOSITORY / "conf").rglob("*.yaml")}
    assert "name: clip" in run(vlp, "print-config", "conf/run/clip.yaml", at=tmp_path)
    where = "import vlp, pipelines; print(vlp.__file__, pipelines.__file__)"
    assert run(python, "-c", where, at=tmp_path).count(packages) == 2


def test_files_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "run" / "clip.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: mine\n")
    said = CliRunner().invoke(main, ["conf", "copy", str(tmp_path / "conf")])
    assert said.output.endswith("(1 were there before)\n")
    assert own.read_text() == "name: mine\n"
    assert (tmp_path / "conf" / "machine" / "laptop.yaml").is_file()


def test_every_kind_of_file_of_conf_is_part_of_a_release() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    listed = {pattern for one in project["tool"]["setuptools"]["data-files"].values() for pattern in one}
    there = {
        f"{file.parent.relative_to(REPOSITORY)}/*.yaml" for file in (REPOSITORY / "conf").rglob("*.yaml")
    }
    assert listed == there


def test_a_citation_names_the_version() -> None:
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    assert {"cff-version", "message", "title", "authors", "license"} <= cited.keys()
