"""What would stop a sweep, or make it pointless, found before any work."""

from collections.abc import Iterator
from typing import Any

from pipelines.config.errors import ConfigError, UserError, blaming, nearest
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build, to_dict
from pipelines.corpus.corpus import with_sets
from pipelines.sweeps.first_steps import first_steps
from pipelines.sweeps.room import check_trains_under_ray
from pipelines.sweeps.samplers import value_text
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.trial import MASK
from pipelines.training.checks import check_length, check_on_machine
from pipelines.workflow.plan import LATER, PipelineConfig
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig


def check_sweep(
    config: SweepConfig, pipeline: PipelineConfig, runs: dict[str, RunConfig], machine: MachineConfig
) -> None:
    """Find what can be known of a sweep before there is data: every corner of its space has to be a run.

    Raises:
        ConfigError: the first mistake, in one line.
    """
    if config.run not in runs:
        raise ConfigError(f"run: {config.pipeline} has no run {config.run!r}{nearest(config.run, runs)}")
    check_trains_under_ray(machine)
    if config.max_gpu_hours is not None and not machine.use_gpu:
        raise ConfigError(
            f"max_gpu_hours is {config.max_gpu_hours:g} and machine.use_gpu is false: no trial holds a GPU; "
            "set max_hours"
        )
    layers = with_evaluation(runs[config.run], planned_evaluation(pipeline), config)
    base = build(RunConfig, layers)
    _check_measured(base, config)
    corners: list[RunConfig] = []
    for values, run in _corners(config, layers):
        _check_run(run, base, machine, values)
        if all((other.objective, other.evaluation) != (run.objective, run.evaluation) for other in corners):
            _check_metrics(run, config)
        corners.append(run)
    _check_effects(config, corners)
    if config.scheduler.has_population:
        _check_population(config, base, corners)
    if config.from_step is not None:
        _check_shared(config, base, layers, config.from_step)


def planned_evaluation(pipeline: PipelineConfig) -> EvaluationConfig:
    """What the runs of a pipeline will be measured on; the sets need not be there yet."""
    evaluation = pipeline.evaluation or EvaluationConfig()
    return evaluation if pipeline.corpus is None else with_sets(evaluation, pipeline.corpus, LATER)


def with_evaluation(base: RunConfig, evaluation: EvaluationConfig, config: SweepConfig) -> Layers:
    """Settings of every trial: measured on the pipeline's evaluation sets while it trains."""
    layers = Layers().add(to_dict(base), str(config.pipeline))
    sets = {key: value for key, value in to_dict(evaluation).items() if value is not None}
    layers = layers.add({"evaluation": sets}, "sweep").add({"plugins": config.plugins}, "sweep")
    return layers.set(config.overrides, "overrides")


def _corners(config: SweepConfig, layers: Layers) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    for values in config.points.corners():
        try:
            yield values, build(RunConfig, layers.set(values, "space"))
        except ConfigError as error:
            raise ConfigError(f"{_said(values)}: {error}") from error


def _check_measured(base: RunConfig, config: SweepConfig) -> None:
    """Whether trials can be compared: they are measured while they train, after steps that are known."""
    length = base.training.length
    if base.needs_measuring:
        raise ConfigError(
            f"training.length.{length.measure}: the trials of a sweep are compared after as "
            "many steps, which have to be known; set training.length.steps, samples or flops instead"
        )
    check_length(base)
    every, steps = base.evaluation.every_steps, base.num_steps
    if every is None:
        raise ConfigError(
            "overrides: evaluation.every_steps is missing: the trials of a sweep are compared by what is "
            f"measured while they train; set it, such as to {max(1, steps // 3)}"
        )
    with blaming():
        config.scheduler.check(steps=steps, every_steps=every)
    if isinstance(config.score, int) and not _is_measured(config.score, every, steps):
        lower = max(every, config.score - config.score % every)
        raise ConfigError(
            f"score is step {config.score}, after which nothing is measured: that is done after every "
            f"{every} of {steps} steps (evaluation.every_steps); set it to {min(lower, steps)}, last or best"
        )


def _is_measured(step: int, every: int, steps: int) -> bool:
    return step == steps or (0 < step < steps and step % every == 0)


def _check_run(run: RunConfig, base: RunConfig, machine: MachineConfig, values: dict[str, Any]) -> None:
    try:
        check_on_machine(run, machine)
        check_length(run)
        if run.tokenizer != base.tokenizer:
            with blaming("tokenizer: "):
                run.tokenizer.build()
    except UserError as error:
        raise ConfigError(f"{_said(values)}: {error}") from error


def _check_metrics(run: RunConfig, config: SweepConfig) -> None:
    """Whether every metric is one that is measured of a run."""
    made = {
        f"val/{one.data.name}/{metric}"
        for one in run.evaluation.measurements(run.objective, run.tokenizer)
        for metric in one.protocol.metrics
    }
    for metric in config.metrics:
        if metric not in made:
            why = "".join(f"; {line}" for line in run.evaluation.refusals(run.objective, run.tokenizer))
            raise ConfigError(
                f"metrics: {metric} is not measured of {run.name} ({run.objective.name})"
                f"{nearest(metric, made)}{why}"
            )


def _check_effects(config: SweepConfig, corners: list[RunConfig]) -> None:
    """Whether every setting of the mask that is searched decides something."""
    for key in config.space:
        name = key.removeprefix(MASK).partition(".")[0]
        if key.startswith(MASK) and all(name in run.mask.unused for run in corners):
            raise ConfigError(
                f"space.{key}: decides nothing beside the other settings of {corners[0].mask.name} masking; "
                "take it out, or set what it acts on in overrides"
            )


def _check_population(config: SweepConfig, base: RunConfig, corners: list[RunConfig]) -> None:
    """Whether a run can go on with any settings of the space, and is as long."""
    name = f"scheduler.name is {config.scheduler.name}, which changes it while a run trains"
    for key in config.space:
        if not base.may_change(key):
            raise ConfigError(
                f"space.{key}: {name}, and that is decided when a run begins; what may change is mask, "
                "lr_schedule, optimizer (but not which), and training.max_grad_norm; take it out"
            )
    steps = {run.num_steps for run in corners} - {base.num_steps}
    if steps:
        raise ConfigError(
            f"training.length: with {config.scheduler.name} all trials have as many steps, and by "
            f"training.length.{base.training.length.measure} the space has runs of {base.num_steps} and "
            f"{max(steps)}; set training.length.steps in overrides"
        )


def _check_shared(config: SweepConfig, base: RunConfig, layers: Layers, steps: int) -> None:
    """Whether nothing that is searched acts in the first steps."""
    if steps >= base.num_steps:
        raise ConfigError(
            f"from_step is {steps} and the run has {base.num_steps} steps: nothing is left to train; set it "
            f"below {base.num_steps}"
        )
    shared = first_steps(base, steps)
    for values, run in _corners(config, layers):
        if run.num_steps <= steps or first_steps(run, steps) != shared:
            key = next((key for key in values if _acts(layers, key, values, shared, steps)), None)
            named = _said(values) if key is None else f"space.{key}: {value_text(values[key])}"
            raise ConfigError(
                f"{named} acts before step {steps} (from_step), and all trials share the steps until there; "
                "take it out, or leave from_step out"
            )


def _acts(layers: Layers, key: str, values: dict[str, Any], shared: str, steps: int) -> bool:
    """Whether a setting alone changes the first steps."""
    try:
        run = build(RunConfig, layers.set({key: values[key]}, "space"))
    except ConfigError:
        return False
    return run.num_steps <= steps or first_steps(run, steps) != shared


def _said(values: dict[str, Any]) -> str:
    return "space: " + " ".join(f"{key}={value}" for key, value in values.items())
