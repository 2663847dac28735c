"""A length of seconds as a number of steps, at a pace that is measured before the first of them."""

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median

from pipelines.checkpoints.checkpoint import read_run
from pipelines.config.errors import blaming
from pipelines.tracking.journal import Journal
from pipelines.training.job import TrainJob
from pipelines.training.resolved import ResolvedRun
from pipelines.training.workers import run_workers
from vlp.evaluation.config import EvaluationConfig
from vlp.training.length import LengthConfig

FOLDER = "pace"
WARM_UP_STEPS, TIMED_STEPS = 3, 7


def at_known_pace(job: TrainJob, newest: Path | None) -> ResolvedRun:
    """The run with a number of steps that is known.

    The pace is measured once: a run that goes on has it from its checkpoint, and so as many steps as before.

    Args:
        newest: the checkpoint that the run goes on from; None where it starts.

    Raises:
        ConfigError: the length does not pay for one step.
    """
    run, length = job.config, job.config.training.length
    if not length.needs_pace:
        return job.run
    if newest is not None:
        return job.run.with_config(replace(run, training=read_run(newest).training))
    length = replace(length, seconds_per_step=_measure(job))
    run = replace(run, training=replace(run.training, length=length))
    with blaming():
        run.check_length()
    print(
        f"[{job.label}] {length.seconds_per_step:.3g} s per step: training.length.seconds "
        f"{length.amount:g} pays for {run.num_masked_steps:,} steps",
        flush=True,
    )
    return job.run.with_config(run)


def _measure(job: TrainJob) -> float:
    """Seconds per step of the run's own workers, in a few steps that leave nothing behind."""
    run, folder = job.config, job.output / FOLDER
    print(f"[{job.label}] measuring the pace of {WARM_UP_STEPS + TIMED_STEPS} steps", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    training = replace(run.training, length=LengthConfig(steps=WARM_UP_STEPS + TIMED_STEPS))
    machine = replace(
        job.machine,
        log_every_steps=1,
        checkpoints=replace(
            job.machine.checkpoints, every_steps=WARM_UP_STEPS + TIMED_STEPS, keep_every_steps=None
        ),
        validation_workers=0,
    )
    journal = Journal(folder / "journal")
    journal.begin(name=run.name, tags={})
    trial = replace(run, training=training, tuning=None, evaluation=EvaluationConfig())
    run_workers(replace(job, run=job.run.with_config(trial), machine=machine, output=folder, journal=journal))
    times = [
        record.fields["metrics"]["worker/batch_time"]
        for record in journal.read()
        if record.kind == "metrics" and "worker/batch_time" in record.fields["metrics"]
    ]
    shutil.rmtree(folder)
    return median(times[WARM_UP_STEPS:])
