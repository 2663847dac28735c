"""A tiny sweep, for tests of everything but its training."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.sweeps.checks import check_sweep, planned_evaluation, with_evaluation
from pipelines.sweeps.conductor import Conductor
from pipelines.sweeps.history import History
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.trial import Trials
from pipelines.tracking.journal import Journal
from pipelines.workflow.plan import LATER, Plan
from tests.paths import REPOSITORY
from tests.servers.ports import free_port
from vlp.run import RunConfig

METRIC = "val/tiny_world/text_to_image/recall@5"
PIPELINE: dict[str, Any] = {
    "name": "tiny",
    "corpus": {"name": "tiny_world", "num_train": 120, "num_heldout": 20, "image_size": 32},
    "serve": {"port": free_port()},
    "download": {"image_size": 32, "number_sample_per_shard": 60},
    "common": {
        "image_encoder": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2},
        "training": {"length": {"steps": 40}, "batch_size": 20, "precision": "fp32"},
        "optimizer": {"lr": 1e-3},
        "lr_schedule": {"warmup_steps": 2},
    },
    "runs": [
        {
            "base": str(REPOSITORY / "conf/run/flip.yaml"),
            "objective": {"embed_dim": 16, "text_encoder": {"width": 16, "depth": 1, "num_heads": 2}},
        },
        {
            "base": str(REPOSITORY / "conf/run/cluster_rgb.yaml"),
            "objective": {"embed_dim": 16, "text_encoder": {"width": 16, "depth": 1, "num_heads": 2}},
        },
    ],
}
SWEEP: dict[str, Any] = {
    "name": "ratio",
    "pipeline": "tiny.yaml",
    "run": "flip",
    "overrides": {"evaluation.every_steps": 10},
    "space": {"mask.mask_ratio": {"uniform": [0.1, 0.8]}},
    "metrics": {METRIC: "max"},
    "num_trials": 3,
    "scheduler": {"name": "asha", "grace_steps": 10},
}


def sweep_config(**changes: Any) -> SweepConfig:
    """The sweep, with some of its settings replaced."""
    return build(SweepConfig, Layers().add(SWEEP | changes, "sweep.yaml"))


def plan() -> Plan:
    """Of the pipeline."""
    return Plan.read(Layers().add(PIPELINE, "tiny.yaml"))


def check(config: SweepConfig, machine: MachineConfig | None = None) -> None:
    """Everything that is looked at before there is data."""
    runs = {run.name: run for run in plan().runs(LATER, LATER)}
    check_sweep(config, plan().config, runs, machine or MachineConfig())


def mistake(config: SweepConfig) -> str | None:
    """What `check` finds, if it finds anything."""
    try:
        check(config)
    except ConfigError as error:
        return str(error)
    return None


@cache
def _settings(values: str) -> dict[str, Any]:
    """Of the run of a sweep."""
    config = build(SweepConfig, Layers().add(json.loads(values), "sweep.yaml"))
    base = next(run for run in plan().runs(LATER, LATER) if run.name == config.run)
    return with_evaluation(base, planned_evaluation(plan().config), config).merged(RunConfig)


def trials_of(config: SweepConfig, folder: Path) -> Trials:
    """What the trials of a sweep would share."""
    settings = _settings(json.dumps(SWEEP | {"run": config.run, "overrides": config.overrides}))
    return Trials(settings, MachineConfig(), folder, folder, Journal(folder / "journal"))


def conductor_of(config: SweepConfig, folder: Path) -> Conductor:
    """What decides, in the state that the folder holds."""
    return Conductor(config, trials_of(config, folder), History(folder))
