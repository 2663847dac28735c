"""Joining a Ray cluster, or starting Ray on this machine."""

import logging
import math
import os
import socket

from pipelines.config import MachineConfig
from pipelines.config_errors import ConfigError

# Quiet and fast defaults; the environment wins.
ENVIRONMENT = {
    "RAY_COLOR_PREFIX": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
RUNTIME_ENV = {"env_vars": {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}}  # for clusters that others have started


def connect(machine: MachineConfig, *, min_cpus: float = 1, spare_cpus: int = 0) -> None:
    """Join the configured cluster, or start Ray here with at least `min_cpus`; once per process.

    Args:
        spare_cpus: added to this machine's cores where Ray starts here, for processes that only wait.

    Raises:
        ConfigError: a running cluster has fewer CPUs than one step of the work needs at once.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = machine.ray_address or os.environ.get("RAY_ADDRESS")
        if address is None:
            _start(max(math.ceil(min_cpus), (os.cpu_count() or 1) + spare_cpus))
        else:
            _join(address)
    available = ray.cluster_resources().get("CPU", 0)
    if available < min_cpus:
        raise ConfigError(
            f"the work needs {min_cpus:g} CPUs at once and the cluster has {available:g}; "
            "lower machine.num_workers, machine.cpus_per_worker or machine.data_workers"
        )


def _join(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    runtime_env = RUNTIME_ENV
    try:
        if port.isdigit() and "/" not in host:
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray itself tries for minutes
            # As in `_start`: parts of Ray that run in workers look for a cluster of their own otherwise.
            runtime_env = {"env_vars": RUNTIME_ENV["env_vars"] | {"RAY_ADDRESS": address}}
        ray.init(address, runtime_env=runtime_env, logging_level=logging.ERROR)
    except OSError as error:  # Ray's ConnectionError is one too
        raise ConfigError(
            f"machine.ray_address: no Ray cluster answers at {address}; start one with `ray start --head`, "
            "or leave the address out to start Ray on this machine"
        ) from error


def _start(num_cpus: int) -> None:
    """Start Ray on this machine.

    Its processes learn its address from the environment: parts of Ray look for the only Ray of the machine
    otherwise, and fail where there are two.
    """
    import ray
    import ray.util

    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    own = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}"}
    os.environ |= own
    try:
        ray.init("local", num_cpus=num_cpus, logging_level=logging.ERROR)
    finally:
        for key in own:
            del os.environ[key]
