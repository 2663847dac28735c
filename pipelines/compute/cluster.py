"""Joining a Ray cluster, or starting Ray on this machine."""

import logging
import math
import os
import site
import socket
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from pipelines.compute.output import show_workers_alone
from pipelines.compute.termination import keeping_sigterm
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig

QUIET_WORKERS = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # else gloo warns of each address that has no name
}
# Quiet and fast defaults; the environment wins.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's tables; a sweep says by itself how far it is
    "RAY_COLOR_PREFIX": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After a node died, Ray plans with it for up to 20 s more: such an attempt waits for room that is gone.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
} | QUIET_WORKERS
START_ATTEMPTS = 2
REMEDIES = {
    "CPU": "lower machine.num_workers, machine.cpus_per_worker or machine.data_workers",
    "GPU": "lower machine.num_workers, or set machine.use_gpu=false",
}


def connect(machine: MachineConfig, *, min_cpus: float = 1, min_gpus: int = 0, spare_cpus: int = 0) -> None:
    """Join the configured cluster, or start Ray here with at least `min_cpus`; once per process.

    Args:
        spare_cpus: added to this machine's cores where Ray starts here, for processes that only wait.

    Raises:
        UserError: the cluster, or this machine, has less than one step of the work needs at once.
    """
    check_gpus_here(machine, min_gpus)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = _address(machine)
        with keeping_sigterm():
            if address is None:
                _start(max(math.ceil(min_cpus), (os.cpu_count() or 1) + spare_cpus))
            else:
                _join(address)
        show_workers_alone()
    total, free = ray.cluster_resources(), ray.available_resources()
    for kind, needed in (("CPU", min_cpus), ("GPU", min_gpus)):
        if (available := total.get(kind, 0)) < needed:
            raise UserError(
                f"the work needs {needed:g} {kind}s at once and the cluster has {available:g}, of which "
                f"{free.get(kind, 0):g} are free; {REMEDIES[kind]}"
            )


def ray_tags() -> dict[str, str]:
    """Labels of a run that say where Ray worked on it; {} of a process without Ray."""
    import ray
    from ray._private.worker import get_dashboard_url  # there is no public one of a Ray that was joined

    if not ray.is_initialized():
        return {}
    address = get_dashboard_url()
    dashboard = {"ray_dashboard": f"http://{address}"} if address else {}
    return {"ray_job": ray.get_runtime_context().get_job_id()} | dashboard


def connect_for_training(machine: MachineConfig) -> None:
    """Join a cluster that has room for the least training workers; nothing in a process without Ray.

    Raises:
        UserError: as `connect`; or its nodes are too small.
    """
    counts = machine.worker_counts
    if counts.most == 0:
        return
    needed = counts.least + machine.validation_workers
    min_cpus = needed * machine.cpus_per_worker
    connect(machine, min_cpus=min_cpus, min_gpus=machine.num_gpus)
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(room_on_node(machine, node) for node in nodes)
    if room < needed:
        validators = machine.validation_workers
        beside = f" and machine.validation_workers {validators}" if validators else ""
        sizes = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise UserError(
            f"machine.num_workers is {counts}{beside}, each on one node with {machine.cpus_per_worker} CPUs "
            f"(machine.cpus_per_worker) and {int(machine.use_gpu)} GPUs, and the cluster's nodes have room "
            f"for {room} ({sizes}); lower machine.num_workers to {room - validators} at most, or "
            "machine.cpus_per_worker"
        )


def room_on_node(machine: MachineConfig, resources: Mapping[str, float]) -> int:
    """How many training workers a node with some CPUs and GPUs has room for."""
    by_cpus = int(resources.get("CPU", 0) // machine.cpus_per_worker)
    return min(by_cpus, int(resources.get("GPU", 0))) if machine.use_gpu else by_cpus


def check_gpus_here(machine: MachineConfig, needed: int) -> None:
    """Find missing GPUs before Ray starts on this machine; a running cluster may have them elsewhere.

    Raises:
        UserError: this machine has fewer.
    """
    if not needed or joins_cluster(machine):
        return
    import torch

    if (found := torch.cuda.device_count()) < needed:
        raise UserError(
            f"machine.use_gpu with machine.num_workers {machine.worker_counts} needs {needed} GPUs and this "
            f"machine has {found}; {REMEDIES['GPU']}"
        )


def joins_cluster(machine: MachineConfig) -> bool:
    """Whether Ray runs already, perhaps on several nodes, of which this machine is one."""
    return _address(machine) is not None


def _address(machine: MachineConfig) -> str | None:
    """Where a running cluster is to be joined; None to start Ray here."""
    return machine.ray_address or os.environ.get("RAY_ADDRESS") or None


def _join(address: str) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    host, _, port = address.rpartition(":")
    own = QUIET_WORKERS | {
        # Of the nodes that see this machine's folders: their workers find what this process does.
        "PYTHONPATH": os.pathsep.join([*module_folders(), "${PYTHONPATH}"]),
    }
    try:
        if port.isdigit() and "/" not in host:
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray itself tries for minutes
            # As in `_start`: parts of Ray that run in workers look for a cluster of their own otherwise.
            own["RAY_ADDRESS"] = address
    except OSError as error:
        raise _no_cluster(address) from error
    try:
        ray.init(address, runtime_env={"env_vars": own}, logging_level=logging.ERROR)
    except AuthenticationError as error:
        raise _refused(address) from error
    except ConnectionError as error:
        raise (_refused(address) if "RAY_ADDRESS" in own else _no_cluster(address)) from error


def _no_cluster(address: str) -> UserError:
    return UserError(
        f"machine.ray_address: no Ray cluster answers at {address}; start one with `ray start --head`, or "
        "leave the address out (and unset RAY_ADDRESS) to start Ray on this machine"
    )


def _refused(address: str) -> UserError:
    return UserError(
        f"machine.ray_address: {address} answers, and takes no connection: the cluster has another token, or "
        "is not of this version of Ray; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
        "as its head has them"
    )


def _start(num_cpus: int) -> None:
    """Start Ray on this machine.

    Its processes learn its address from the environment: parts of Ray look for the only Ray of the machine
    otherwise, and fail where there are two. They find the modules that this process does.
    """
    import ray.util

    # It waits, in a process of its own, for notices that a node will be taken back; there is but this one.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    before = dict(os.environ)
    try:
        for _ in range(START_ATTEMPTS):
            port = _free_port()
            os.environ |= {
                "RAY_GCS_SERVER_PORT": str(port),
                "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}",
                "PYTHONPATH": os.pathsep.join(module_folders()),
            }
            if _starts(num_cpus):
                return
    finally:
        for key in ("RAY_GCS_SERVER_PORT", "RAY_ADDRESS", "PYTHONPATH"):
            _set_back(key, before)
    raise UserError(
        f"Ray did not start on this machine, {START_ATTEMPTS} times: it is busy, or short of memory; end "
        "other programs, or name a running cluster in machine.ray_address (what Ray says of it is in "
        "session_latest/logs of its temporary folder, /tmp/ray where none is set)"
    )


def _starts(num_cpus: int) -> bool:
    """Start Ray; False if a part of it takes longer than Ray waits for it, half a minute or more."""
    import ray

    try:
        # Ray Train asks the dashboard for the state of its controllers: without it, the placement group of a
        # run is never freed, and the next trial of a sweep waits for ever.
        ray.init("local", num_cpus=num_cpus, include_dashboard=True, logging_level=logging.CRITICAL)
    except Exception as error:
        if type(error) is not Exception:  # Ray has no class of its own for a part that is late
            raise
        ray.shutdown()
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    return True


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def _set_back(key: str, environment: Mapping[str, str]) -> None:
    os.environ.pop(key, None)
    if key in environment:
        os.environ[key] = environment[key]


def module_folders() -> list[str]:
    """Folders that this process imports modules from, without those of what is installed: each node has its
    own."""
    installed = [sysconfig.get_path("stdlib"), *site.getsitepackages(), site.getusersitepackages()]
    folders = [Path(folder).absolute() for folder in sys.path]
    return [str(f) for f in folders if f.is_dir() and not any(f.is_relative_to(i) for i in installed)]
