"""What a run was computed with: code, command, packages, machine."""

import getpass
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pipelines.config.secrets import without_secrets

CODE = Path(__file__).parent


def environment_tags() -> dict[str, str]:
    """Tags of a run that say which code ran, how it was called, by whom, and on what.

    MLflow shows of a source what follows its last slash, so the command names its files without their folders
    there; `command` has all of it.
    """
    tags = {f"{name}_version": metadata.version(name) for name in ("torch", "ray")}
    tags |= {"python_version": platform.python_version(), "host": socket.gethostname()}
    tags |= {"command": shlex.join(sys.argv), "mlflow.source.type": "LOCAL"}
    tags["mlflow.source.name"] = " ".join(["vlp", *map(_without_folder, sys.argv[1:])])
    tags["mlflow.user"] = tags["user"] = _user()
    if commit := _git(CODE, "rev-parse", "HEAD"):
        tags |= {"mlflow.source.git.commit": commit, "commit": _state(CODE)}
    here = Path.cwd()
    if _git(here, "rev-parse", "--show-toplevel") not in ("", _git(CODE, "rev-parse", "--show-toplevel")):
        tags["commit_of_folder"] = _state(here)
    return tags


def environment_lock() -> str:
    """The installed packages, one `name==version` per line."""
    return "".join(sorted({f"{package.name}=={package.version}\n" for package in metadata.distributions()}))


def _without_folder(argument: str) -> str:
    key, equals, value = without_secrets(argument).rpartition("=")
    return key + equals + value.rpartition("/")[2]


def _state(folder: Path) -> str:
    """The commit of a folder's repository, and whether files differ from it."""
    commit = _git(folder, "rev-parse", "--short", "HEAD") or "no commit"
    return f"{commit} + changes" if _git(folder, "status", "--porcelain") else commit


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """What git says of a folder's repository; empty without git or a repository."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
