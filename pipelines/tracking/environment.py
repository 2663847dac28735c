"""What a run was computed with: code, command, packages, machine."""

import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def environment_tags() -> dict[str, str]:
    """Tags of a run that say which code ran, how it was called, and on what."""
    tags = {f"{name}_version": metadata.version(name) for name in ("torch", "ray")}
    tags |= {"python_version": platform.python_version(), "host": socket.gethostname()}
    tags["mlflow.source.name"] = shlex.join(sys.argv)
    if commit := _git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
    return tags


def environment_lock() -> str:
    """The installed packages, one `name==version` per line."""
    return "".join(sorted({f"{package.name}=={package.version}\n" for package in metadata.distributions()}))


def _git(*arguments: str) -> str:
    """What git says of this file's repository; empty without git or a repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
