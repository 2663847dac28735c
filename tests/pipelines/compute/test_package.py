"""What travels with a job, compared with what git would take."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from pipelines.compute import package
from pipelines.compute.package import Package
from pipelines.config.errors import UserError


def make(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)


def names(of: Package) -> set[str]:
    return {file.as_posix() for file in of.files}


def test_it_is_what_git_would_take(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.py",
        "data/x.csv",
        "data/keep.csv",
        "logs/1.log",
        "sub/b.py",
        "sub/b.tmp",
        "sub/deep/c.tmp",
    )
    make(tmp_path, "build/out.o", "sub/build/out.o", "keep.tmp")
    (tmp_path / ".gitignore").write_text("*.csv\n!keep.csv\nlogs/\n/build\n*.tmp\n")
    (tmp_path / "sub" / ".gitignore").write_text("!b.tmp\nbuild/\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert names(Package.of(tmp_path)) == set(listed.stdout.splitlines())


def test_results_and_what_is_excluded_stay(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.py",
        "results/mlflow.db",
        ".venv/bin/python",
        "pkg/__pycache__/a.pyc",
        "big.bin",
        "x/big.bin",
    )
    assert names(Package.of(tmp_path, exclude=["big.bin"])) == {"a.py"}


def test_it_says_what_it_holds(tmp_path: Path) -> None:
    make(tmp_path, "conf/run/a.yaml", "results/shards/0.tar")
    held = Package.of(tmp_path)
    assert held.holds(Path("conf"))
    assert held.holds(Path("./conf/run/a.yaml"))
    assert not held.holds(Path("results/shards"))


def test_the_archive_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    for folder in (one := tmp_path / "one", other := tmp_path / "other"):
        make(folder, "a.py", "conf/b.yaml")
    (other / "a.py").touch()
    first = Package.of(one).write(tmp_path / "1.zip")
    assert Package.of(other).write(tmp_path / "2.zip") == first
    (other / "a.py").write_text("changed")
    assert Package.of(other).write(tmp_path / "3.zip") != first
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.read("conf/b.yaml") == b"conf/b.yaml"


def test_the_largest_files_of_too_many_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "small.txt")
    (tmp_path / "weights.bin").write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr(package, "MAX_BYTES", 2 * 2**20)
    with pytest.raises(UserError, match=r"a job takes 2\.1 MB; .* the largest: weights\.bin \(3\.15 MB\)"):
        Package.of(tmp_path)
