"""What every training worker does: build, restore, then batch -> loss -> update, and checkpoints."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from torch import Tensor, nn

from pipelines.checkpoint import build_objective, restore_training, save_checkpoint
from pipelines.config import MachineConfig
from pipelines.evaluate import measure
from pipelines.journal import Journal
from pipelines.progress import Progress
from pipelines.run_config import RunConfig
from vlp.batch import Batch
from vlp.data.document_frequency import DocumentFrequency
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, open_shards
from vlp.data.order import rank_batches
from vlp.distributed import all_mean, is_main, rank, world_size
from vlp.objectives import Objective
from vlp.optim import build_optimizer, learning_rate
from vlp.training import forward, update


@dataclass(frozen=True)
class Job:
    """One training run, as it is sent to the workers."""

    config: RunConfig
    machine: MachineConfig
    checkpoints: Path
    journal: Journal


class TrainingDivergedError(RuntimeError):
    """The loss is no number any more."""


def train_worker(loop_config: dict[str, Any]) -> None:
    """The function that Ray Train runs on every worker."""
    logging.disable(logging.INFO)  # Ray Train repeats every report, on every worker
    job: Job = loop_config["job"]
    config, total = job.config, job.config.training.steps
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    objective = _build(config).to(device)
    optimizer = build_optimizer(objective, config.optimizer)
    start = _restore(objective, optimizer)
    model = ray.train.torch.prepare_model(objective)
    log = StepLog(job, start)
    for step, batch in enumerate(_batches(job, start, device), start):
        log.batch_arrived()
        metrics = _train_step(model, batch, optimizer, config, step)
        objective.after_update()
        done = step + 1
        if done % job.machine.log_every_steps == 0 or done == total:
            log.write(done, metrics)
        if is_due(done, job):
            _report(job, done, objective, optimizer)
            log.resume()


def is_due(done: int, job: Job) -> bool:
    """Whether a checkpoint follows this many steps."""
    every = job.config.evaluation.every_steps
    return (
        done % job.machine.checkpoint_every_steps == 0
        or (every is not None and done % every == 0)
        or done == job.config.training.steps
    )


class StepLog:
    """Rank 0 writes the metrics of a step to the journal and a line to the terminal."""

    def __init__(self, job: Job, start: int) -> None:
        self.job = job
        self.logged = start
        self.data_seconds = 0.0
        self.progress = Progress(f"pretrain {job.config.name}", job.config.training.steps, "steps")
        self.resume()

    def resume(self) -> None:
        """Start the clock: what was done since the last step is not training."""
        self.since = self.waiting_since = time.perf_counter()
        self.data_seconds = 0.0
        self.steps_timed = 0

    def batch_arrived(self) -> None:
        """The loader has delivered; the time since the last step was spent waiting."""
        self.data_seconds += time.perf_counter() - self.waiting_since
        self.steps_timed += 1

    def write(self, done: int, metrics: dict[str, Tensor]) -> None:
        """Log the means over the workers. A collective: every worker calls it."""
        values = {key: all_mean(value.detach().float()).item() for key, value in metrics.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingDivergedError(
                f"the loss of {self.job.config.name} is {values['loss']} at step {done}; "
                "lower optimizer.lr, lengthen optimizer.warmup_steps or set training.max_grad_norm"
            )
        step_seconds = (time.perf_counter() - self.since) / self.steps_timed
        values["batch_time"] = step_seconds
        values["data_time"] = self.data_seconds / self.steps_timed
        values["samples_per_second"] = self.job.config.training.batch_size / step_seconds
        if is_main():
            self.job.journal.metrics({f"train/{key}": value for key, value in values.items()}, step=done)
            self.progress.update(
                done, f"loss {values['loss']:.3f}  {values['samples_per_second']:,.0f} images/s"
            )
        self.resume()


def _build(config: RunConfig) -> Objective:
    if config.data.document_frequency is None:
        return build_objective(config, document_frequency=None)
    table = DocumentFrequency.read(config.data.document_frequency)
    return build_objective(
        config, document_frequency=torch.from_numpy(table.counts), num_documents=table.num_documents
    )


def _restore(objective: Objective, optimizer: torch.optim.Optimizer) -> int:
    """Go on from the last checkpoint that Ray Train knows; returns the number of steps that were done."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    step = restore_training(Path(checkpoint.path), objective=objective, optimizer=optimizer)
    if is_main():
        print(f"going on from the checkpoint after step {step:,}", flush=True)
    return step


def _batches(job: Job, start: int, device: torch.device) -> BatchLoader:
    config = job.config
    shards = open_shards(config.data, cache=job.machine.cache)
    draws = rank_batches(
        data_order(shards, config.data, seed=config.seed, batch_size=config.training.batch_size),
        steps=range(start, config.training.steps),
        rank=rank(),
        world_size=world_size(),
    )
    pairs = TrainingPairs(shards, config.data, image_size=config.image_encoder.image_size, seed=config.seed)
    tokenizer = config.tokenizer.build()
    return BatchLoader(pairs, draws, tokenizer, num_workers=job.machine.loader_workers, device=device)


def _train_step(
    model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, config: RunConfig, step: int
) -> dict[str, Tensor]:
    loss, metrics = forward(model, batch, config.training, step=step, seed=config.seed)
    lr = learning_rate(config.optimizer, step, total_steps=config.training.steps)
    norm = update(model, loss, optimizer, lr=lr, max_norm=config.training.max_grad_norm)
    return metrics | {"loss": loss, "grad_norm": norm, "lr": torch.tensor(lr, device=loss.device)}


def _report(job: Job, done: int, objective: Objective, optimizer: torch.optim.Optimizer) -> None:
    """Save a checkpoint on rank 0, measure the model if that is configured, and tell Ray Train."""
    metrics: dict[str, Any] = {"step": done}
    checkpoint = None
    if is_main():
        if job.config.evaluation.every_steps is not None:
            scores = measure(objective, job.config, job.config.evaluation)
            metrics |= {f"val/{key}": value for key, value in scores.items()}
            job.journal.metrics({key: metrics[key] for key in metrics if key != "step"}, step=done)
        folder = job.checkpoints / f"step_{done:07d}"
        save_checkpoint(folder, config=job.config, step=done, objective=objective, optimizer=optimizer)
        checkpoint = Checkpoint.from_directory(folder)
    # The folder is in its final place already: Ray Train only registers it, and deletes old ones.
    ray.train.report(
        metrics,
        checkpoint=checkpoint,
        checkpoint_dir_name=f"step_{done:07d}",
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )
