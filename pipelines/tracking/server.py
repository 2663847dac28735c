"""An MLflow server on a SQLite store."""

import os
import socket
import subprocess
import sys

from pipelines.config.errors import ConfigError, UserError, is_terminated
from pipelines.config.machine import MachineConfig
from pipelines.config.secrets import without_secrets
from pipelines.tracking.database import artifacts_path, database_path, experiments, is_whole
from pipelines.tracking.view import HOST, PORT, run_page, runs_page


def ui(tracking_uri: str, *, host: str, port: int) -> int:
    """Browse a SQLite store: runs an MLflow server until Ctrl-C or SIGTERM; returns its exit code.

    Raises `ConfigError` for any other store, `UserError` where the port cannot be had. On
    another host than localhost, MLflow also wants to know under which names it may be asked: the environment
    variable `MLFLOW_SERVER_ALLOWED_HOSTS`.
    """
    database = database_path(tracking_uri)
    if database is None:
        raise ConfigError(f"machine.tracking_uri is not an SQLite store: open {tracking_uri} in a browser")
    _check_port(host, port)
    if not is_whole(database):
        from pipelines.tracking.store import make_database  # takes a while to import

        make_database(database)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(artifacts_path(database))]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Without its job queue the server needs 0.7 GB less memory.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    address = f"http://{host}:{port}"
    print(f"MLflow on {address} (Ctrl-C stops it)", flush=True)
    for name, experiment_id in experiments(database).items():
        print(f"  {name}: {address}/{runs_page(experiment_id)}", flush=True)
    server = subprocess.Popen(command, env=os.environ | quiet)
    try:
        return server.wait()
    except KeyboardInterrupt as stop:
        server.terminate()
        code = server.wait()
        if is_terminated(stop):
            raise
        return code


def _check_port(host: str, port: int) -> None:
    if not 0 < port < 1 << 16:
        raise UserError(f"--port: {port} is not a port; choose one from 1 to 65535")
    try:
        family, *_, place = socket.getaddrinfo(host, port)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise UserError(
            f"--port: cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
        ) from error


def page_of_run(machine: MachineConfig, experiment_id: str, run_id: str) -> str:
    """The address of a run's page: of the server, or of what `vlp ui` opens."""
    server = machine.tracking_uri or f"http://{HOST}:{PORT}"
    return without_secrets(f"{server.rstrip('/')}/{run_page(experiment_id, run_id)}")


def browse(machine: MachineConfig, experiment_id: str = "") -> str:
    """How a user opens MLflow on what a command has tracked.

    Args:
        experiment_id: of the experiment; empty where it is not known, as of a server that did not answer.
    """
    page = f"/{runs_page(experiment_id)}" if experiment_id else ""
    if machine.tracking_uri is not None:
        return without_secrets(f"open {machine.tracking_uri.rstrip('/')}{page}")
    command = sys.argv[0] if sys.argv[0].endswith("vlp") else "vlp"
    key = "machine.storage" if machine.work is None else "machine.work"
    is_default = str(machine.work_folder) == "results"
    command = f"{command} ui" if is_default else f"{command} ui {key}={machine.work_folder}"
    return f"{command}, then open http://{HOST}:{PORT}{page}" if page else command
