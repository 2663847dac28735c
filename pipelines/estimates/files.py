"""The files that plans are made of: of a run, a pipeline or a sweep."""

import os
from dataclasses import dataclass

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build, check_still_named, read_yaml, to_dict
from pipelines.estimates.work import Data, Given, Training, data_of, evaluated, evaluated_by
from pipelines.sweeps.checks import planned_evaluation, with_evaluation
from pipelines.sweeps.room import trials_at_once
from pipelines.sweeps.settings import SweepConfig
from pipelines.training.checks import check_length, check_on_machine
from pipelines.workflow.plan import LATER, PipelineConfig, Plan, check_before_data
from vlp.run import RunConfig

SPARE_CPUS = 1
"""That Ray has on this machine beside its cores, for the processes of trials, which only wait."""


@dataclass(frozen=True)
class Planned:
    """What a file asks for."""

    data: Data | None
    trainings: list[Training]
    pipeline: PipelineConfig
    """Whose data and tables are like those of the trainings."""


def read_planned(layers: Layers, machine: MachineConfig, given: Given) -> Planned:
    """What a run's, a pipeline's or a sweep's settings ask for, told by a key that only it has.

    Raises:
        ConfigError: they are none of these, or have a mistake.
    """
    kinds = {"runs": _pipeline, "space": _sweep, "objective": _run}
    values = layers.merged()
    for key, read in kinds.items():
        if key in values:
            return read(layers, machine, given)
    raise ConfigError(
        f"these settings are of no run, pipeline or sweep: they have none of {', '.join(kinds)}; give a file "
        "of conf/run, conf/pipeline or conf/sweep"
    )


def _pipeline(layers: Layers, machine: MachineConfig, given: Given) -> Planned:
    plan = Plan.read(layers)
    check_before_data(plan, machine)
    measured_on, seeds = evaluated_by(plan.config), plan.config.seeds
    runs = plan.runs(LATER, LATER)
    methods = runs[: len(runs) // seeds]
    trainings = [Training(run, measured_on, times=seeds, measured_times=seeds) for run in methods]
    return Planned(data_of(plan, given), trainings, plan.config)


def _run(layers: Layers, machine: MachineConfig, given: Given) -> Planned:
    run = build(RunConfig, layers)
    check_still_named(layers)
    check_on_machine(run, machine)
    check_length(run)
    parts = PipelineConfig(name="measured", docfreq={"tokenizer": to_dict(run.tokenizer)}, runs=[])
    return Planned(None, [Training(run, evaluated(run.evaluation))], parts)


def _sweep(layers: Layers, machine: MachineConfig, given: Given) -> Planned:
    config = build(SweepConfig, layers)
    plan = Plan.read(Layers().add(read_yaml(config.pipeline), str(config.pipeline)))
    runs = {run.name: run for run in plan.runs(LATER, LATER)}
    if config.run not in runs:
        raise ConfigError(f"run: {config.pipeline} has no run {config.run!r}; valid: {', '.join(runs)}")
    base = build(RunConfig, with_evaluation(runs[config.run], planned_evaluation(plan.config), config))
    check_length(base)
    times = config.total_settings * config.seeds
    at_once = _at_once(machine, times)
    training = Training(base, evaluated_by(plan.config), times, at_once, measured_times=0)
    return Planned(data_of(plan, given), [training], plan.config)


def _at_once(machine: MachineConfig, trials: int) -> int:
    """Trials that this machine has room for; on another cluster one after another."""
    if machine.ray_address is not None or not machine.worker_counts.most:
        return 1
    import torch

    here = {"CPU": float(os.cpu_count() or 1) + SPARE_CPUS, "GPU": float(torch.cuda.device_count())}
    return min(trials, trials_at_once(machine, [here]))
