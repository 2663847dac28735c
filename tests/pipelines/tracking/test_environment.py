import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.tracking.environment import environment_lock, environment_tags


def test_the_environment_is_described():
    tags = environment_tags()
    assert {
        "mlflow.source.name",
        "command",
        "user",
        "commit",
        "python_version",
        "torch_version",
        "ray_version",
        "host",
    } <= tags.keys()
    lines = environment_lock().splitlines()
    assert f"ray=={tags['ray_version']}" in lines
    assert lines == sorted(set(lines))


def test_the_source_is_the_command_without_folders_and_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow shows what follows the last slash of it."""
    arguments = ["run", "conf/pipeline/demo.yaml", "machine.tracking_uri=http://me:Hunter2@host/x/y"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/vlp", *arguments])
    tags = environment_tags()
    assert tags["mlflow.source.name"] == "vlp run demo.yaml machine.tracking_uri=y"
    assert arguments[1] in tags["command"]


def test_the_commit_of_ones_own_folder_is_told_with_its_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "commit_of_folder" not in environment_tags()
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@x"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    clean = environment_tags()["commit_of_folder"]
    (tmp_path / "run.yaml").touch()
    assert environment_tags()["commit_of_folder"] == f"{clean} + changes"
