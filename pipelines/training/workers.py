"""The workers of a training run, under Ray Train."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.checkpoints.mirror import restore
from pipelines.checkpoints.store import list_saved
from pipelines.compute.termination import ending_softly
from pipelines.training.job import CHECKPOINTS, TrainJob
from pipelines.training.keeping import kept_here


class StoppedError(Exception):
    """A training was asked to end before its last step, and did."""


def run_workers(job: TrainJob, callbacks: Sequence[Any] = ()) -> Path:
    """Train to the end of a run, or go on where it was; returns the folder of the last checkpoint.

    Args:
        callbacks: of Ray Train, that hear every report.

    Raises:
        Terminated: SIGTERM ended the training, after a checkpoint.
        StoppedError: its stop file did.
    """
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(job.machine.recovery.hang_seconds)
    from ray.train import FailureConfig, LoggingConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    from pipelines.training.callbacks import AnnounceFailures, StartWatch
    from pipelines.training.loop import train_worker

    logging.getLogger("ray.train").setLevel(logging.ERROR)  # the driver's; `logging_config` is the workers'
    machine, counts = job.machine, job.machine.worker_counts
    resources = {"CPU": machine.cpus_per_worker} | ({"GPU": 1} if machine.use_gpu else {})
    listeners: list[Any] = [AnnounceFailures(job), StartWatch(job), *callbacks]
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": kept_here(job)},
        scaling_config=ScalingConfig(
            num_workers=(counts.least, counts.most) if counts.is_elastic else counts.least,
            use_gpu=machine.use_gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=machine.recovery.resize_seconds,
        ),
        run_config=RayRunConfig(
            name=CHECKPOINTS,
            storage_path=str(job.output),
            failure_config=FailureConfig(max_failures=machine.recovery.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
            callbacks=listeners,
        ),
    )
    job.stop_file.unlink(missing_ok=True)
    with ending_softly(partial(_ask_to_stop, job)):
        trainer.fit()
    if job.stop_file.exists():
        raise StoppedError
    place = job.checkpoints
    here = list_saved(place.folder)
    if place.mirror and (not here or here[-1].step < job.last_step):  # another node's worker wrote the last
        restore(place.folder, place.mirror, label=place.label)
    return place.folder / list_saved(place.folder)[-1].name


def _ask_to_stop(job: TrainJob) -> None:
    job.stop_file.touch()
    print(
        f"[{job.label}] SIGTERM: ending with a checkpoint after this step; a second one ends at once",
        flush=True,
    )
