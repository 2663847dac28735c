"""The best settings of one run of a pipeline, over any of its dotted keys."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.compute.cluster import connect
from pipelines.config.errors import ConfigError, UserError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.plugins import with_digests
from pipelines.config.settings import Layers, flat_params, read_yaml, to_dict
from pipelines.sweeps.checks import check_sweep, with_evaluation
from pipelines.sweeps.conductor import Conductor
from pipelines.sweeps.history import FILE_NAME, History
from pipelines.sweeps.live import overhead_text
from pipelines.sweeps.report import Outcome, forget_best, write_outcome
from pipelines.sweeps.room import DRIVER_CPUS, trials_at_once
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.trial import Trials
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.tracking.published import published_files
from pipelines.tracking.session import alone
from pipelines.training.resolved import resolve
from pipelines.workflow.pipeline import prepare_data
from pipelines.workflow.plan import LATER, Plan
from pipelines.workflow.stages import Stages
from vlp.run import RunConfig
from vlp.shards.published import put
from vlp.shards.storage.local import LocalFolder

SETTINGS = "sweep.json"
"""In the folder of a sweep: its label, and the settings that its trials share."""


@dataclass(frozen=True)
class Planned:
    """A sweep that was checked."""

    plan: Plan
    label: str
    """A name that only this sweep has, of what decides its results but the data."""


def sweep(config: SweepConfig, *, machine: MachineConfig) -> Outcome:
    """Run the search, or go on with it, until every trial has ended.

    Raises:
        ConfigError: a setting is wrong; found before the first trial starts.
        UserError: a trial failed; there is no winner.
        KeyboardInterrupt: the search was interrupted; there is no winner yet.
    """
    planned = _planned(config, machine)
    journal = _journal(config, planned, machine)
    if not _has_ended(config, planned, machine):
        _connect(machine)  # what there is no room for is said before any work
    with alone(journal.folder, output=machine.work_folder / "sweeps"), _begun(config, journal):
        trials = _trials(config, planned, machine, journal)
        there = machine.published(trials.folder)
        with published_files(trials.folder, there, names=(SETTINGS, FILE_NAME)):
            outcome = _searched(config, trials)
        if there:
            for file in trials.folder.iterdir():
                if file.is_file():
                    put(file, there)
        return outcome


def _searched(config: SweepConfig, trials: Trials) -> Outcome:
    conductor = Conductor(config, trials, History(trials.folder))
    _say_what_is_there(conductor)
    if not conductor.is_done:
        at_once, before = _connect(trials.machine), trials.seconds_of_work()
        _run(conductor, at_once)
        seconds, worked = time.time() - psutil.Process().create_time(), trials.seconds_of_work() - before
        print(f"[sweep] {overhead_text(seconds, worked=worked, at_once=at_once)}", flush=True)
    outcome = Outcome.of(config, trials, conductor.history)
    write_outcome(outcome)
    return outcome


def sweep_so_far(config: SweepConfig, *, machine: MachineConfig) -> Outcome:
    """What is known of a sweep that has begun; does no work, also while another process goes on with it.

    Raises:
        ConfigError: a setting is wrong.
        UserError: it has not begun.
    """
    for trials in _begun_trials(config, _planned(config, machine), machine):
        return Outcome.of(config, trials, History(trials.folder))
    raise UserError(
        f"{config.name}: no trial of a sweep with these settings has begun in "
        f"{machine.work_folder / 'sweeps'}; the same command without --partial begins it"
    )


def _has_ended(config: SweepConfig, planned: Planned, machine: MachineConfig) -> bool:
    """Whether nothing is left of the sweep, unless its data has changed."""
    begun = _begun_trials(config, planned, machine)
    return any(Conductor(config, trials, History(trials.folder)).is_done for trials in begun)


def _begun_trials(config: SweepConfig, planned: Planned, machine: MachineConfig) -> Iterator[Trials]:
    """Of a sweep of these settings, by the data that it was begun on."""
    journal = _journal(config, planned, machine)
    for file in sorted((machine.work_folder / "sweeps").glob(f"{config.name}-*/{SETTINGS}")):
        saved = json.loads(file.read_text())
        if saved["label"] == planned.label:
            folder = file.parent.absolute()
            yield Trials(saved["run"], machine, Path(saved["started_in"]), folder, journal)


def _journal(config: SweepConfig, planned: Planned, machine: MachineConfig) -> Journal:
    return Journal((machine.work_folder / "journals" / config.name / planned.label).absolute())


@contextmanager
def _begun(config: SweepConfig, journal: Journal) -> Iterator[None]:
    """The record of the sweep, from its settings to its end."""
    journal.begin(name=config.name, tags=environment_tags() | {"stage": "sweep"})
    journal.params(flat_params(config))
    with ending(journal):
        yield


def _connect(machine: MachineConfig) -> int:
    """Join a cluster; how many trials it has room for at once."""
    workers = machine.worker_counts.least * machine.cpus_per_worker
    connect(machine, min_cpus=workers + DRIVER_CPUS, min_gpus=machine.num_gpus, spare_cpus=1)
    import ray

    return trials_at_once(machine, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def _planned(config: SweepConfig, machine: MachineConfig) -> Planned:
    plan = Plan.read(Layers().add(read_yaml(config.pipeline), str(config.pipeline)))
    plan.check()
    runs = {run.name: run for run in plan.runs(LATER, LATER)}
    if source := plan.sources().get(config.run):
        raise ConfigError(
            f"run: {config.run} starts from the weights of {source}, which a sweep does not train; name "
            "another run, or one with init_from.path"
        )
    check_sweep(config, plan.config, runs, machine)
    # The pipeline counts by what it says, wherever its file lies.
    own = {k: v for k, v in to_dict(config).items() if k not in {"pipeline", *config.may_grow}}
    # The run itself, too: its file may say something else than it did, under the same name.
    parts = [with_digests(part) for part in (own, to_dict(plan.config), to_dict(runs[config.run]))]
    return Planned(plan, f"{config.name}-{fingerprint(*parts)[:8]}")


def _trials(config: SweepConfig, planned: Planned, machine: MachineConfig, journal: Journal) -> Trials:
    """The data of the trials, made where it is not there, and what they share."""
    plan = planned.plan
    made = (machine.work_folder / plan.config.name).absolute()
    stages = Stages(made, journal, machine.published(made))
    evaluation, shards, tables = prepare_data(plan, stages, machine)
    name = f"{config.name}-{fingerprint(planned.label, shards.digest)[:8]}"
    base = next(run for run in plan.runs(machine.in_storage(shards.folder), tables) if run.name == config.run)
    trials = Trials(
        run=with_evaluation(base, evaluation, config).merged(RunConfig),
        machine=machine.absolute(),
        started_in=Path.cwd(),
        folder=(machine.work_folder / "sweeps" / name).absolute(),
        journal=journal,
    )
    resolve(trials.config(next(config.points.corners())), machine)
    shared = {"label": planned.label, "run": trials.run, "started_in": str(trials.started_in)}
    LocalFolder(trials.folder).write_json(SETTINGS, shared)
    return trials


def _say_what_is_there(conductor: Conductor) -> None:
    if conductor.history.settings:
        print(f"[sweep] going on with {conductor.trials.folder}", flush=True)
    conductor.history.begin()


def _run(conductor: Conductor, at_once: int) -> None:
    from pipelines.sweeps.tune import close_trial, run_trials

    history = conductor.history
    forget_best(Outcome.of(conductor.config, conductor.trials, history))
    try:
        run_trials(conductor, at_once=at_once)
    finally:
        for run in list(conductor.running):
            close_trial(conductor, run)
    _check_ended(conductor)


def _check_ended(conductor: Conductor) -> None:
    """Raise an error where a trial failed, or the search was interrupted."""
    failures = conductor.failures()
    if failures:
        raise UserError(
            f"{len(failures)} of {conductor.num_runs()} trials failed, so none is the best: {failures[0]}; "
            "the same command tries them again"
        )
    if not conductor.is_done:  # Ray Tune ends as usual when it is interrupted
        print(
            f"[sweep] {conductor.num_ended()} of {conductor.num_runs()} trials have ended; the same command "
            "goes on",
            flush=True,
        )
        raise KeyboardInterrupt
