"""What a team has: a Ray cluster that asks for a token, MLflow with users on PostgreSQL, and an object store.

Every computer has its own address and disks: nothing but the store is common to them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers.computers import DISK, Network
from tests.servers.mlflow_server import PASSWORD, USER, Server
from tests.servers.object_store import ObjectStore, serving
from tests.servers.postgres import Postgres, database
from tests.servers.ray_computers import RayComputers
from tests.servers.ray_head import TOKEN_IN_USE
from vlp.shards.storage.folder import Folder

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "MLFLOW_TRACKING_USERNAME": USER,
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
}
WORK = DISK / "vlp"
"""Where work is done on the disk of a computer."""


@dataclass(frozen=True)
class Installation:
    """All of it, as it runs."""

    folder: Path
    """Of logs, and of what users keep on their own computer."""
    network: Network
    store: ObjectStore
    storage: Folder
    """Of all results."""
    postgres: Postgres
    mlflow: Server
    ray: RayComputers

    @property
    def machine(self) -> dict[str, Any]:
        """The settings under `machine`."""
        return {
            "ray_address": "auto",
            "storage": str(self.storage),
            "work": str(WORK),
            "tracking_uri": self.mlflow.address,
        }

    def submit(self, *arguments: str, log: Path) -> psutil.Popen:
        """`vlp submit` on the computer of a user, in the folder of its log."""
        command = [sys.executable, "-m", "pipelines", "submit", "--address", self.ray.dashboard, *arguments]
        with log.open("a") as file:
            return psutil.Popen(
                command, cwd=log.parent, env=os.environ | TOKEN_IN_USE, stdout=file, stderr=subprocess.STDOUT
            )


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    """All of it, with two nodes, until the end of the context; skips the test where a part cannot be run."""
    with (
        pytest.MonkeyPatch.context() as environment,
        Network() as network,
        serving(os.environ | CREDENTIALS, host=network.address) as store,
        database(["mlflow", "mlflow_auth"]) as postgres,
    ):
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        store.bucket("mlflow")
        storage = store.bucket()
        mlflow = Server(postgres.address, store, folder, network.address)
        mlflow.start()
        ray = RayComputers(network, folder, CREDENTIALS)
        ray.start_head()
        for _ in range(2):
            ray.add_node()
        try:
            yield Installation(folder, network, store, storage, postgres, mlflow, ray)
        finally:
            mlflow.stop()
