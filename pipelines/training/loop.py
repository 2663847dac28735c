"""What every training worker does: build, restore, then batch -> mask -> step -> hooks."""

import logging
from pathlib import Path
from typing import Any

import ray.train.torch
import torch
import torch.distributed as dist

from pipelines.checkpoints.checkpoint import TrainingState, begin_from, restore_training
from pipelines.checkpoints.mirror import ensure, restore
from pipelines.checkpoints.store import newest_whole
from pipelines.checkpoints.writer import CheckpointWriter
from pipelines.training.bad_steps import BadSteps
from pipelines.training.calibration import Recalibration
from pipelines.training.job import TrainJob
from pipelines.training.keeping import delivered, drop_unrecorded, on_this_node, stop_file_of
from pipelines.training.machine_load import MachineLoad
from pipelines.training.masks import MaskChoice
from pipelines.training.pictures import Pictures
from pipelines.training.preparation import prepare_objective
from pipelines.training.saving import Collecting, Saving
from pipelines.training.step import TrainingStep
from pipelines.training.step_log import StepLog
from pipelines.training.stopping import Stopping
from pipelines.training.validation import open_validation
from vlp.core.distributed import is_main, is_of_peer, rank, world_size
from vlp.data.loader import BatchLoader, TrainingPairs, data_order, open_shards
from vlp.data.order import Order, rank_batches
from vlp.data.quarantine import UnreadableDataError
from vlp.training.bad_steps import BadStepError, Watch
from vlp.training.ema import EMA
from vlp.training.optim import build_optimizer
from vlp.training.step import build_scaler


def train_worker(loop_config: dict[str, Any]) -> None:
    """The function that Ray Train runs on every worker."""
    logging.disable(logging.INFO)  # Ray Train repeats every report, on every worker
    job = on_this_node(loop_config["job"])
    if is_main():
        drop_unrecorded(job)
    try:
        with CheckpointWriter(job.checkpoints, job.config) as writer:
            _train(job, writer)
        delivered(job)
    except (UnreadableDataError, BadStepError):
        logging.disable(logging.ERROR)  # Ray Train would print a traceback of what is said in one line
        raise
    except RuntimeError as error:
        if not is_of_peer(error):
            raise
        logging.disable(logging.ERROR)
        raise ConnectionError("it lost its connection to another worker") from None


def _train(job: TrainJob, writer: CheckpointWriter) -> None:
    config, device = job.config, ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    state = _restored(job, _build(job, device))
    pairs, order = _data(job)
    batches = _batches(job, pairs, order, start=state.step, device=device)
    # Without the cache: a few images of every shard would fill it.
    recalibration = Recalibration(config, job.run.shards, job.recalibration_steps)
    choose_mask = MaskChoice(recalibration, job.journal, num_masked_steps=config.num_masked_steps)
    bad_steps = BadSteps(config, job.output, job.journal, job.label, pairs, order, job.run.tokenizer)
    watch = Watch(state.history, config.training.on_bad_step, device)
    take_step = TrainingStep(config, ray.train.torch.prepare_model(state.objective), watch, bad_steps)
    every = job.machine.log_every_steps
    validation = open_validation(job)
    log = StepLog(config, job.journal, label=job.label, every=every, quarantine=batches.quarantine)
    stopping = Stopping(stop_file_of(job))
    hooks = [log, Collecting(validation, every=every), Saving(job, writer, validation), Pictures(job)]
    hooks.append(MachineLoad(job.journal, every=every))

    for hook in hooks:
        hook.start(state)
    for batch in log.clock.each(batches):
        choose_mask(state)
        metrics = take_step(state, batch)
        due = [hook for hook in hooks if hook.is_due(state.step)]
        is_stopping = stopping.is_asked() and state.step < job.last_step
        if due or is_stopping or choose_mask.is_due(state.step):  # what follows needs weights that are sound
            take_step.ask(state)
        log.clock.step_done()
        for hook in due:
            hook(state, batch, metrics)
        if is_stopping:
            for hook in hooks:
                hook.stop(state)
            return
    for hook in hooks:
        hook.finish(state)


def _build(job: TrainJob, device: torch.device) -> TrainingState:
    config = job.config
    objective = job.run.build().to(device)
    ema = EMA(objective, config.training.ema) if config.training.ema else None
    prepare_objective(objective, job.machine, device, matmul=job.matmul)
    optimizer = build_optimizer(objective, config.optimizer)
    scaler = build_scaler(config.training, device)
    return TrainingState(objective, optimizer, ema, config.mask, scaler=scaler, matmul=job.matmul)


def _restored(job: TrainJob, state: TrainingState) -> TrainingState:
    """The state of the newest whole checkpoint, which rank 0 chooses for all; as the run begins if there is
    none."""
    chosen = [_newest(job) if is_main() else None]
    if world_size() > 1:
        dist.broadcast_object_list(chosen, device=next(state.objective.parameters()).device)
    if chosen[0] is not None:
        if job.checkpoints.mirror:
            ensure(chosen[0], job.checkpoints.mirror)
        restore_training(chosen[0], state)
        if is_main():
            print(
                f"going on from the checkpoint after step {state.step:,}, workers: {world_size()}", flush=True
            )
    elif job.run.start is not None:
        begin_from(job.run.start, state)
    return state


def _newest(job: TrainJob) -> Path | None:
    """The checkpoint to go on from, also where others wrote it on another node."""
    place = job.checkpoints
    if place.mirror:
        restore(place.folder, place.mirror, label=place.label)
    return newest_whole(place.folder, label=place.label)


def _data(job: TrainJob) -> tuple[TrainingPairs, Order]:
    """The samples of the run, and which of them each batch has."""
    config = job.config
    captioned = config.objective.reads_captions
    sizes = job.run.shards.shard_sizes  # where conditions choose, each index is read to count them
    shards = open_shards(config.data, captioned=captioned, sizes=sizes, cache=job.machine.cache)
    pairs = TrainingPairs(shards, config.data, image_size=config.image_encoder.image_size, seed=config.seed)
    return pairs, data_order(shards, config.data, seed=config.seed, batch_size=config.training.batch_size)


def _batches(
    job: TrainJob, pairs: TrainingPairs, order: Order, *, start: int, device: torch.device
) -> BatchLoader:
    steps = range(start, job.last_step)
    draws = rank_batches(order, steps=steps, rank=rank(), world_size=world_size())
    workers = job.machine.loader_workers
    return BatchLoader(pairs, draws, job.run.tokenizer, num_workers=workers, device=device)
