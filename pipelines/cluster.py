"""Joining a Ray cluster, or starting Ray on this machine."""

import logging
import math
import os

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
WORKER_ENVIRONMENT = {"NO_ALBUMENTATIONS_UPDATE": "1", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}


def connect(machine: MachineConfig, *, min_cpus: float = 1) -> None:
    """Join the configured cluster, or start Ray here with at least `min_cpus`; once per process.

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
        address = machine.ray_address or os.environ.get("RAY_ADDRESS") or "local"
        ray.init(
            address=address,
            num_cpus=max(os.cpu_count() or 1, math.ceil(min_cpus)) if address == "local" else None,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
            logging_level=logging.ERROR,
        )
    available = ray.cluster_resources().get("CPU", 0)
    if available < min_cpus:
        raise ConfigError(
            f"the work needs {min_cpus:g} CPUs at once and the cluster has {available:g}; "
            "lower machine.num_workers, machine.cpus_per_worker or machine.data_workers"
        )
