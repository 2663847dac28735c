"""An MLflow server on a SQLite store, and where such a store keeps its files."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.config.errors import ConfigError

ARTIFACTS_NAME = "mlartifacts"


def ui(tracking_uri: str, *, host: str, port: int) -> int:
    """Browse a SQLite store: runs an MLflow server until Ctrl-C and returns its exit code.

    Raises `ConfigError` for any other store. On another host than localhost, MLflow also wants to know under
    which names it may be asked: the environment variable `MLFLOW_SERVER_ALLOWED_HOSTS`.
    """
    database = database_path(tracking_uri)
    if database is None:
        raise ConfigError(f"machine.tracking_uri is not an SQLite store: open {tracking_uri} in a browser")
    database.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(artifacts_path(database))]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Without its job queue the server needs 0.7 GB less memory.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(command, env=os.environ | quiet)
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        return server.wait()


def ui_command(tracking_uri: str | None, storage: Path) -> str:
    """How a user opens MLflow on what a command has tracked."""
    if tracking_uri is not None:
        return f"open {tracking_uri}"
    command = sys.argv[0] if sys.argv[0].endswith("vlp") else "vlp"
    return f"{command} ui" if str(storage) == "results" else f"{command} ui machine.storage={storage}"


def database_path(tracking_uri: str) -> Path | None:
    """The file of a `sqlite:///` store; None for any other store."""
    scheme = "sqlite:///"
    return Path(tracking_uri.removeprefix(scheme)).absolute() if tracking_uri.startswith(scheme) else None


def artifacts_path(database: Path) -> Path:
    """The artifacts of a SQLite store lie beside it."""
    return database.parent / ARTIFACTS_NAME
