"""What every training worker does: build, restore, then batch -> loss -> update, and checkpoints."""

import logging
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.checkpoints.checkpoint import TrainingState, restore_training
from pipelines.checkpoints.store import checkpoint_name, newest_whole
from pipelines.checkpoints.writer import CheckpointWriter
from pipelines.training.bad_steps import BadSteps, Finding
from pipelines.training.calibration import Recalibration
from pipelines.training.init_weights import fresh_objective
from pipelines.training.job import TrainJob
from pipelines.training.step_log import StepLog
from pipelines.training.validation import Validation, open_validation
from vlp.core.batch import Batch
from vlp.core.distributed import is_main, rank, world_size
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, open_shards
from vlp.data.order import Order, rank_batches
from vlp.data.quarantine import UnreadableDataError
from vlp.encoders.blocks import checkpoint_blocks, compile_blocks
from vlp.masking.cluster import ClusterMask
from vlp.masking.none import NoMask
from vlp.run import RunConfig
from vlp.training.bad_steps import BadStepError
from vlp.training.cpu import prepare_cpu_training
from vlp.training.ema import EMA
from vlp.training.negatives import caption_metrics
from vlp.training.optim import build_optimizer
from vlp.training.step import backward, build_scaler, forward, has_overflowed, take_step


def train_worker(loop_config: dict[str, Any]) -> None:
    """The function that Ray Train runs on every worker."""
    logging.disable(logging.INFO)  # Ray Train repeats every report, on every worker
    job = loop_config["job"]
    try:
        with CheckpointWriter(job.checkpoints, job.config) as writer:
            _train(job, writer)
    except (UnreadableDataError, BadStepError):
        logging.disable(logging.ERROR)  # Ray Train would print a traceback of what is said in one line
        raise


def _train(job: TrainJob, writer: CheckpointWriter) -> None:
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    shards = open_shards(job.config.data, cache=job.machine.cache)
    state = _build(job, device)
    _restore(job, state)
    model = ray.train.torch.prepare_model(state.objective)
    # Without the cache: a few images of every shard would fill it.
    recalibration = Recalibration(job.config, open_shards(job.config.data), job.recalibration_steps)
    validation = open_validation(job)
    if job.config.num_steps == 0:
        _report(job, state, writer, validation)  # the untrained network, to compare with
    log = StepLog(job.config, job.journal)
    pairs = TrainingPairs(
        shards, job.config.data, image_size=job.config.image_encoder.image_size, seed=job.config.seed
    )
    order = data_order(
        shards, job.config.data, seed=job.config.seed, batch_size=job.config.training.batch_size
    )
    batches = _batches(job, pairs, order, start=state.step, device=device)
    bad_steps = BadSteps(job, pairs, order)
    for batch in batches:
        log.batch_arrived()
        _choose_mask(state, job, recalibration)
        metrics = _train_step(model, batch, state, bad_steps)
        metrics["replaced_samples"] = torch.tensor(
            batches.quarantine.num_replaced * world_size(), device=device
        )
        log.step_done()
        if state.step % job.machine.log_every_steps == 0 or state.step == job.config.num_steps:
            log.write(state.step, metrics | _batch_metrics(batch, job.config))
            validation.collect()
        if job.is_due(state.step):
            _report(job, state, writer, validation)
            log.resume()
    writer.wait()
    validation.finish()
    if is_main():
        writer.make_room(state.step)


def _build(job: TrainJob, device: torch.device) -> TrainingState:
    config = job.config
    objective = fresh_objective(config).to(device)
    ema = EMA(objective, config.training.ema) if config.training.ema else None
    if device.type == "cpu":
        prepare_cpu_training(objective)
    objective.num_parts = job.machine.memory.batch_parts
    if job.machine.memory.checkpoint_activations:
        checkpoint_blocks(objective)
    if job.machine.compile:
        compile_blocks(objective)
    optimizer = build_optimizer(objective, config.optimizer)
    scaler = build_scaler(config.training, device)
    return TrainingState(objective, optimizer, ema, config.mask, scaler=scaler)


def _restore(job: TrainJob, state: TrainingState) -> None:
    """Go on from the newest whole checkpoint, which rank 0 chooses for all."""
    chosen = [newest_whole(job.checkpoints.folder, label=job.label) if is_main() else None]
    if world_size() > 1:
        dist.broadcast_object_list(chosen, device=next(state.objective.parameters()).device)
    if chosen[0] is None:
        return
    restore_training(chosen[0], state)
    if is_main():
        print(f"going on from the checkpoint after step {state.step:,}, workers: {world_size()}", flush=True)


def _batches(
    job: TrainJob, pairs: TrainingPairs, order: Order, *, start: int, device: torch.device
) -> BatchLoader:
    steps = range(start, job.config.num_steps)
    draws = rank_batches(order, steps=steps, rank=rank(), world_size=world_size())
    tokenizer = job.config.tokenizer.build()
    return BatchLoader(pairs, draws, tokenizer, num_workers=job.machine.loader_workers, device=device)


def _choose_mask(state: TrainingState, job: TrainJob, recalibration: Recalibration) -> None:
    """The mask of the next step: calibrated for the weights of the moment, none in the tuning."""
    if state.step in recalibration.steps:
        assert isinstance(state.mask, ClusterMask)
        state.mask, metrics = recalibration.search(state.objective, state.mask, state.step)
        if is_main():
            job.journal.metrics(metrics, step=state.step)
    is_tuning = state.step >= job.config.num_masked_steps
    state.objective.mask = NoMask() if is_tuning else state.mask


def _train_step(
    model: nn.Module, batch: Batch, state: TrainingState, bad_steps: BadSteps
) -> dict[str, Tensor]:
    config, step, mask = bad_steps.job.config, state.step, state.objective.mask
    buffers = [buffer.clone() for buffer in state.objective.buffers()]  # some count in the forward pass
    loss, metrics = forward(model, batch, config.resolved_training, step=step, seed=config.seed)
    norm = backward(model, loss, state.optimizer, state.scaler)
    lr = config.learning_rate(step)
    if has_overflowed(loss, norm, state.scaler):
        _put_back(buffers, state.objective)
    elif problem := state.history.judge(loss, norm, config.training.on_bad_step):
        _put_back(buffers, state.objective)
        bad_steps.handle(state, batch, Finding(problem, loss, norm))
    else:
        take_step(model, state.optimizer, norm, lr=lr, max_norm=config.training.max_grad_norm)
        state.objective.after_update()
        if state.ema:
            state.ema.update(state.objective, step)
    state.step += 1
    chosen = {"lr": lr, "skipped_steps": state.history.num_skipped}
    if state.scaler.is_enabled():
        chosen["loss_scale"] = state.scaler.get_scale()
        state.scaler.update()
    chosen |= mask.state(step / config.num_masked_steps)
    tensors = {key: torch.tensor(float(value), device=loss.device) for key, value in chosen.items()}
    return metrics | {"loss": loss, "grad_norm": norm} | tensors


def _put_back(buffers: list[Tensor], objective: nn.Module) -> None:
    for buffer, before in zip(objective.buffers(), buffers, strict=True):
        buffer.copy_(before)


def _batch_metrics(batch: Batch, config: RunConfig) -> dict[str, Tensor]:
    if not config.objective.encodes_text:
        return {}
    return caption_metrics(batch, context_length=config.tokenizer.context_length)


def _report(job: TrainJob, state: TrainingState, writer: CheckpointWriter, validation: Validation) -> None:
    """Save a checkpoint on rank 0, have the model measured if that is configured, and tell Ray Train.

    Ray Train hears the metrics alone: its own record of checkpoints would refuse to go on where one is gone.
    """
    metrics = validation.measure(state)
    if is_main():
        validation.due(checkpoint_name(state.step))
        writer.save(state, metrics, keep=validation.pending)
    ray.train.report(metrics | {"step": state.step})
