"""The MLflow of a team: users with passwords, PostgreSQL, and an object store behind the server."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

from tests.servers.object_store import ObjectStore
from tests.servers.ports import free_port

USER, PASSWORD = "admin", "a-password-of-tests"
AUTH = f"""
[mlflow]
default_permission = READ
database_uri = DATABASE/mlflow_auth
admin_username = {USER}
admin_password = {PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


class Server:
    """MLflow's, as `docker/compose.yaml` starts it; it can be stopped and started again.

    Args:
        database: address of PostgreSQL, without a database.
        store: where artifacts go.
        folder: for its settings.
        host: address of this machine that it is reached at.
    """

    def __init__(self, database: str, store: ObjectStore, folder: Path, host: str = "127.0.0.1") -> None:
        self.host, self.port, self.process = host, free_port(), None
        self.address = f"http://{host}:{self.port}"
        auth = folder / "auth.ini"
        auth.write_text(AUTH.replace("DATABASE", database))
        self.environment = os.environ | {
            "MLFLOW_BACKEND_STORE_URI": f"{database}/mlflow",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of tests",
            "MLFLOW_AUTH_CONFIG_PATH": str(auth),
            "MLFLOW_S3_ENDPOINT_URL": store.address,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    def start(self) -> None:
        """Run it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", f"--host={self.host}", f"--port={self.port}"]
        command += [f"--allowed-hosts={self.host}:{self.port}"]
        command += ["--workers=1", "--app-name=basic-auth", "--artifacts-destination=s3://mlflow/artifacts"]
        self.process = subprocess.Popen(
            command,
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health").close()
                return
            except URLError:
                assert self.process.poll() is None, "MLflow ended before it answered"
                time.sleep(0.2)

    def stop(self) -> None:
        """Kill it with all its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
