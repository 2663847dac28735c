"""Seconds per step of several trained runs, measured in turn on one worker."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model
from pipelines.checkpoints.mirror import ensure_here
from pipelines.compute.cluster import connect
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.preparation import prepare_objective
from vlp.core.batch import Batch
from vlp.core.config import StrictConfig
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, open_shards
from vlp.data.order import rank_batches
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.manifest import Manifest
from vlp.training.cpu import fastest_matmul
from vlp.training.optim import build_optimizer
from vlp.training.step import backward, forward, take_step

TURNS = 5
MAX_SECONDS = 120.0
"""After which no further turn begins: steps of large models on a CPU take minutes."""


@dataclass(frozen=True, kw_only=True)
class StepTimesConfig(StrictConfig):
    """Which runs are compared by their time."""

    runs: Mapping[str, Path]
    """Name -> folder of a trained run."""


@dataclass(frozen=True, kw_only=True)
class StepTimesManifest(Manifest):
    """The manifest of step times; its digest is that of the runs that were timed."""

    seconds: dict[str, float]
    """Median time of a step, by the run's name."""


def step_times(
    config: StepTimesConfig, output: Path, *, machine: MachineConfig, journal: Journal
) -> StepTimesManifest:
    """Time the runs' steps A B C A B C ..., so that a slow moment of the machine hits all of them.

    Wall times of trainings one after another differ by what else the machine did. A step is what one worker
    does without the others: mask, forward and backward pass and update, on its share of a batch of the run's
    own data, halfway through the masked training.
    """
    import ray

    connect(machine, min_cpus=machine.cpus_per_worker, min_gpus=int(machine.use_gpu))
    machine = machine.absolute()
    one_worker: Any = ray.remote(num_cpus=machine.cpus_per_worker, num_gpus=int(machine.use_gpu))
    runs = {name: find_checkpoint(folder).absolute() for name, folder in config.runs.items()}
    seconds: dict[str, float] = ray.get(
        one_worker(_in_turn).remote(runs, replace(machine, cache=machine.shard_cache))
    )
    journal.metrics({f"{name}/step_seconds": value for name, value in seconds.items()})
    manifest = StepTimesManifest(digest=fingerprint(sorted(runs)), seconds=seconds)
    manifest.write(output)
    return manifest


class _Timed(NamedTuple):
    """A run whose steps are timed, where its turn finds it: in memory of the CPU."""

    objective: Objective
    run: RunConfig
    batch: Batch


def _in_turn(runs: Mapping[str, Path], machine: MachineConfig) -> dict[str, float]:
    device = torch.device("cuda" if machine.use_gpu else "cpu")
    timed = {name: _load(folder, machine, device) for name, folder in runs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    start = time.monotonic()
    for turn in range(TURNS):
        if turn and time.monotonic() - start > MAX_SECONDS:
            break
        for name, one in timed.items():
            found[name].append(_turn(one, device, turn))
    return {name: median(seconds) for name, seconds in found.items()}


def _load(folder: Path, machine: MachineConfig, device: torch.device) -> _Timed:
    """The model of a checkpoint, on a node that may have a disk of its own."""
    cpu = torch.device("cpu")
    ensure_here(folder, machine)
    objective, run = load_model(folder, cpu)
    prepare_objective(objective, machine, device, matmul=machine.matmul or fastest_matmul())
    shards = open_shards(run.data, captioned=run.objective.reads_captions, cache=machine.cache)
    pairs = TrainingPairs(shards, run.data, image_size=run.image_encoder.image_size, seed=run.seed)
    order = data_order(shards, run.data, seed=run.seed, batch_size=run.training.batch_size)
    draws = rank_batches(order, steps=range(1), rank=0, world_size=max(1, machine.worker_counts.most))
    batches = BatchLoader(pairs, draws, run.tokenizer.build(), num_workers=0, device=cpu)
    return _Timed(objective.train(), run, next(iter(batches)))


def _turn(timed: _Timed, device: torch.device, turn: int) -> float:
    """Seconds of a step, after one that warms up; the device holds this run alone, as in its training."""
    objective, run = timed.objective.to(device), timed.run
    batch = Batch(*(tensor.to(device) for tensor in timed.batch[:3]))
    optimizer = build_optimizer(objective, run.optimizer)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        loss, _ = forward(
            objective, batch, run.resolved_training, step=run.num_masked_steps // 2 + turn, seed=run.seed
        )
        norm = backward(objective, loss, optimizer)
        max_norm, is_good = run.training.max_grad_norm, norm.isfinite()
        take_step(objective, optimizer, norm, lr=0.0, max_norm=max_norm, is_good=is_good)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    optimizer.zero_grad()
    objective.to("cpu")
    return seconds
