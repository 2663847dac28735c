"""Ray Tune: the best settings of one run of a pipeline, over any of its dotted keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.compute.cluster import connect
from pipelines.config.errors import ConfigError, UserError, blaming, nearest
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.plugins import with_digests
from pipelines.config.settings import (
    Layers,
    build,
    flat_params,
    read_yaml,
    to_dict,
)
from pipelines.sweeps.search_space import draw, search_space, setting_text
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.trial import DRIVER_CPUS, Search, run_trial
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.training.checks import check_length
from pipelines.training.resolved import resolve
from pipelines.workflow.pipeline import prepare_data
from pipelines.workflow.plan import LATER, Plan
from pipelines.workflow.stages import Stages
from vlp.core.messages import one_line
from vlp.run import RunConfig


@dataclass(frozen=True)
class Best:
    """The winner of a sweep."""

    metric: str
    score: float
    overrides: list[str]
    config: Path
    """File that `vlp pretrain` takes."""


def sweep(config: SweepConfig, *, machine: MachineConfig) -> Best:
    """Run the search, or go on with it; writes `best.yaml`.

    Raises:
        ConfigError: a setting is wrong; found before the first trial starts.
        UserError: a trial failed; there is no winner.
        KeyboardInterrupt: the search was interrupted; there is no winner yet.
    """
    plan = Plan.read(Layers().add(read_yaml(config.pipeline), str(config.pipeline)))
    pipeline = plan.config
    plan.check()
    runs = {run.name: run for run in plan.runs(LATER, LATER)}
    _check(config, runs)
    # The run itself, too: its file may say something else than it did, under the same name.
    identities = [with_digests(to_dict(part)) for part in (config, pipeline, runs[config.run])]
    label = f"{config.name}-{fingerprint(*identities)[:8]}"
    journal = Journal((machine.storage / "journals" / config.name / label).absolute())
    journal.begin(name=config.name, tags=environment_tags() | {"stage": "sweep"})
    journal.params(flat_params(config))
    trial_cpus = DRIVER_CPUS + max(machine.worker_counts) * machine.cpus_per_worker
    connect(machine, min_cpus=trial_cpus, spare_cpus=1)
    with ending(journal):
        stages = Stages((machine.storage / pipeline.name).absolute(), journal)
        evaluation, shards, tables = prepare_data(plan, stages, machine)
        folder = machine.storage / "sweeps" / f"{config.name}-{fingerprint(label, shards.digest)[:8]}"
        base = next(run for run in plan.runs(shards.folder, tables) if run.name == config.run)
        search = Search(
            run=_with_evaluation(base, to_dict(evaluation), config).merged(RunConfig),
            machine=machine,
            started_in=Path.cwd(),
            folder=folder.absolute(),
            journal=journal,
        )
        resolve(search.config({}), machine)
        try:
            results = _tune(config, search, trial_cpus)
        finally:
            _close_trials(journal)
        return _best(results, config, search)


def _check(config: SweepConfig, runs: dict[str, RunConfig], num_draws: int = 32) -> None:
    """Find a wrong name, key or range before any work: some draws from the space must all be runs."""
    if config.run not in runs:
        raise ConfigError(f"run: {config.pipeline} has no run {config.run!r}{nearest(config.run, runs)}")
    layers = _with_evaluation(runs[config.run], {}, config)
    base = build(RunConfig, layers)
    if base.needs_measuring:
        raise ConfigError(
            f"training.length.{base.training.length.measure}: the trials of a sweep are compared after as "
            "many steps, which have to be known; set training.length.steps, samples or flops instead"
        )
    space = search_space(config.space)
    for _ in range(num_draws):
        drawn = {key: draw(sampler) for key, sampler in space.items()}
        run = build(RunConfig, layers.set(drawn, "space"))
        check_length(run)
        if any(key.startswith("tokenizer") for key in space):
            with blaming("space: tokenizer: "):
                run.tokenizer.build()


def _with_evaluation(base: RunConfig, evaluation: dict[str, Any], config: SweepConfig) -> Layers:
    """Settings of every trial: measured on the pipeline's evaluation sets while it trains."""
    layers = Layers().add(to_dict(base), str(config.pipeline)).add({"evaluation": evaluation}, "sweep")
    layers = layers.add({"plugins": config.plugins}, "sweep")
    return layers.set(config.overrides, "overrides")


def _tune(config: SweepConfig, search: Search, trial_cpus: float) -> Any:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    from pipelines.sweeps.callbacks import FollowTrials

    total_steps = search.config({}).num_masked_steps
    trainable = tune.with_resources(tune.with_parameters(run_trial, search=search), {"cpu": DRIVER_CPUS})
    storage = search.folder / "tune"
    if tune.Tuner.can_restore(str(storage)):
        print(f"[sweep] going on with {storage}", flush=True)
        tuner = tune.Tuner.restore(
            str(storage), trainable=trainable, resume_unfinished=True, resume_errored=True
        )
        return tuner.fit()
    scheduler = ASHAScheduler(
        time_attr="step",
        max_t=total_steps,
        grace_period=config.scheduler.grace_steps,
        reduction_factor=config.scheduler.reduction_factor,
    )
    room = int(ray.cluster_resources()["CPU"] / trial_cpus)
    return tune.Tuner(
        trainable,
        param_space=search_space(config.space),
        tune_config=tune.TuneConfig(
            metric=config.metric,
            mode=config.mode,
            num_samples=config.num_trials,
            search_alg=BasicVariantGenerator(random_state=config.seed, max_concurrent=max(1, room)),
            scheduler=scheduler,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(search.folder),
            verbose=0,
            callbacks=[FollowTrials(config, search)],
        ),
    ).fit()


def _close_trials(journal: Journal) -> None:
    """End the records of trials that an interrupt has ended."""
    for folder in journal.folder.glob("trial-*"):
        trial = Journal(folder)
        if not any(record.kind == "end" for record in list(trial.read())[-1:]):
            trial.end("KILLED")


def _best(results: Any, config: SweepConfig, search: Search) -> Best:
    """Write the winner's settings to a file of their own, without what only a sweep needs."""
    file = search.folder / "best.yaml"
    file.unlink(missing_ok=True)
    num_trials = config.total_trials
    if results.num_errors:
        reason = one_line(results.errors[0])
        raise UserError(
            f"{results.num_errors} of {num_trials} trials failed, so none is the best: {reason}; "
            "the same command tries them again"
        )
    if results.num_terminated < num_trials:  # Ray Tune ends as usual when it is interrupted
        print(f"[sweep] {results.num_terminated} of {num_trials} trials have ended; the same command goes on")
        raise KeyboardInterrupt
    best = results.get_best_result(config.metric, config.mode)
    run = to_dict(search.config(best.config))
    file.write_text(yaml.safe_dump(run, sort_keys=False))
    search.journal.artifact(file)
    search.journal.metrics({f"best/{config.metric}": best.metrics[config.metric]})
    overrides = [f"{key}={setting_text(value)}" for key, value in best.config.items()]
    search.journal.tags({"best": " ".join(overrides)})
    return Best(config.metric, best.metrics[config.metric], overrides, file)
