"""A checkpoint and evaluation sets to metrics, as a Ray task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from PIL import Image

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model, read_run, steps_done
from pipelines.checkpoints.mirror import ensure_here
from pipelines.compute.cluster import connect
from pipelines.config.errors import ConfigError, UserError, blaming
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import absolute_paths, to_dict
from pipelines.evaluation.embed import digests, embed, feature_folder, make_embedder, open_store
from pipelines.evaluation.measured_model import MeasuredModel
from pipelines.tracking.journal import Journal
from vlp.core.config import StrictConfig
from vlp.evaluation.config import EvaluationConfig, Measurement
from vlp.evaluation.measure import measure
from vlp.evaluation.outcome_table import read_outcomes, write_outcomes
from vlp.evaluation.sets import EvaluationSet
from vlp.metrics import intervals
from vlp.metrics.group_means import GroupMean, group_means
from vlp.metrics.intervals import Interval, named_intervals
from vlp.metrics.outcomes import OUTCOMES as OUTCOME_KINDS
from vlp.metrics.outcomes import NoOutcomesError, Outcomes, named_metrics
from vlp.objectives import Objective
from vlp.pictures.examples import example_sheet
from vlp.pictures.reconstructions import reconstructions
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST, Manifest
from vlp.shards.published import take
from vlp.shards.storage.digests import Digests
from vlp.shards.storage.folder import Folder

PICTURES = 6
EXAMPLES = 5
"""Items that a picture shows of those that went best, and of those that went worst."""
OUTCOMES = "outcomes.parquet"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StrictConfig):
    """Which model is measured on what."""

    checkpoint: Path
    """Folder of a checkpoint, or of a run, whose last one is taken; or what MLflow holds, as runs:/RUN_ID,
    runs:/RUN_ID/STEP, models:/MODEL_ID, models:/NAME/VERSION or models:/NAME@ALIAS."""
    plugins: tuple[str, ...] = ()
    """Modules of one's own, beside those that the checkpoint names."""
    evaluation: EvaluationConfig
    """What it is measured on."""


@dataclass(frozen=True, kw_only=True)
class EvaluationManifest(Manifest):
    """The manifest of an evaluation; its digest is that of the numbers.

    Beside it is `outcomes.parquet`, what became of single items, of which they are made.
    """

    step: int
    """The checkpoint's."""
    metrics: dict[str, float]
    """By `set/metric`."""
    intervals: dict[str, Interval]
    """Of every metric, that hold 95 % of what other images would have given."""
    groups: dict[str, GroupMean] = field(default_factory=dict)
    """Means over the sets of a suite's groups, by `group/protocol`."""
    model: MeasuredModel
    """What was measured."""
    chance: dict[str, float] = field(default_factory=dict)
    """What guessing gives, by `set/metric`; of the metrics for which it is known."""
    main_metrics: dict[str, dict[str, str]] = field(default_factory=dict)
    """Group of the suite -> set -> the number that counts of it."""
    classes: dict[str, list[str]] = field(default_factory=dict)
    """Set -> names of its classes."""

    @classmethod
    def from_json(cls, content: Any) -> Self:
        found = {name: Interval(*ends) for name, ends in content["intervals"].items()}
        groups = {name: GroupMean(*parts) for name, parts in content["groups"].items()}
        model = MeasuredModel(**content["model"] | {"papers": tuple(content["model"]["papers"])})
        return cls(**content | {"intervals": found, "groups": groups, "model": model})

    @property
    def logged(self) -> dict[str, float]:
        """The metrics and the groups' means, with the ends of their intervals, as they are called in a
        record."""
        means = {f"{key}/mean": one for key, one in self.groups.items()}
        metrics = self.metrics | {key: one.value for key, one in means.items()}
        ends = self.intervals | {key: Interval(one.low, one.high) for key, one in means.items()}
        return {f"val/{key}": value for key, value in with_ends(metrics, intervals=ends).items()}


def with_ends(metrics: Mapping[str, float], *, intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Metrics with the ends of their intervals beside them: `acc1`, `acc1_low`, `acc1_high`."""
    found = dict(metrics)
    for key, interval in intervals.items():
        found |= {f"{key}_low": interval.low, f"{key}_high": interval.high}
    return found


def outcomes_of(folder: Path) -> dict[str, Outcomes]:
    """What became of single items in an evaluation, by `set/` and the first part of the names of metrics."""
    return read_outcomes(folder / OUTCOMES)


def evaluate(
    config: EvaluateConfig, output: Path, *, machine: MachineConfig, journal: Journal
) -> EvaluationManifest:
    """Measure a checkpoint away from training; writes and returns the metrics."""
    checkpoint = find_checkpoint(config.checkpoint)
    check_evaluation(config.evaluation)
    connect(machine, min_cpus=1, min_gpus=int(machine.use_gpu))
    print(f"[evaluate] measuring {checkpoint}", flush=True)
    if (suite := config.evaluation.suite) and (missing := config.evaluation.missing):
        print(f"[evaluate] not in {suite.folder}, so not measured: {', '.join(missing)}", flush=True)
    run = read_run(checkpoint)
    expected = config.evaluation.expected_of(run.objective)
    for reason in expected.refusals(run.objective, run.tokenizer):
        print(f"[evaluate] not measured: {reason}", flush=True)
    embed(checkpoint, config.evaluation, machine=machine)
    found = _as_task(checkpoint, config.evaluation, machine)
    output.mkdir(parents=True, exist_ok=True)
    write_outcomes(found.outcomes, output / OUTCOMES)
    manifest = _manifest(found, run, config.evaluation)
    journal.metrics(manifest.logged, step=found.step)
    for data in config.evaluation.sets:
        digest = _journal_set(data, journal, digests(machine))
        metrics = manifest.metrics.items()
        own = {f"val/{key}": value for key, value in metrics if key.startswith(f"{data.name}/")}
        journal.model_metrics(own, step=found.step, dataset={"name": data.key, "digest": digest})
    manifest.write(output)
    for name in (MANIFEST, OUTCOMES):
        journal.artifact(output / name, folder="evaluation")
    (output / "pictures").mkdir(exist_ok=True)
    for name, picture in found.pictures.items():
        picture.save(output / "pictures" / f"{name}.png")
        journal.artifact(output / "pictures" / f"{name}.png", folder="pictures")
    return manifest


def _manifest(found: "Measured", run: RunConfig, evaluation: EvaluationConfig) -> EvaluationManifest:
    """All numbers about the outcomes, and what is to be known of them."""
    metrics, ends = found.metrics, named_intervals(found.outcomes)
    main_metrics = evaluation.suite.groups if evaluation.suite else {}
    groups = group_means(metrics, ends, groups=main_metrics)
    return EvaluationManifest(
        digest=fingerprint([metrics, ends, groups]),
        step=found.step,
        metrics=metrics,
        intervals=ends,
        groups=groups,
        model=MeasuredModel.of(run),
        chance=evaluation.chance(),
        main_metrics=main_metrics,
        classes={
            data.name: list(data.names["classes"]) for data in evaluation.sets if "classes" in data.names
        },
    )


def _journal_set(data: EvaluationSet, journal: Journal, known: Digests) -> str:
    """Record a set as an input; its digest."""
    digest = data.digest(known.of)
    journal.dataset(
        name=data.key,
        digest=digest,
        source=str(data.folder.absolute()),
        context="evaluation",
        profile={"num_rows": sum(table.num_rows for table in data.tables), "sha256": digest},
        columns=dict(data.tables[0].files[0].columns),
    )
    return digest


def evaluation_identity(evaluation: EvaluationConfig, known: Digests) -> dict[str, Any]:
    """What decides the result of an evaluation: its files' content, its protocols, and what is kept of it."""
    return {
        "files": {data.key: data.digest(known.of) for data in evaluation.sets},
        "protocols": {name: to_dict(protocol) for name, protocol in evaluation.given_protocols.items()},
        "groups": evaluation.suite.groups if evaluation.suite else {},
        "intervals": [intervals.CONFIDENCE, intervals.NUM_DRAWS, intervals.EXACT_BELOW],
        "kept": [one.name for cls in (EvaluationManifest, *OUTCOME_KINDS.values()) for one in fields(cls)],
    }


def check_evaluation(evaluation: EvaluationConfig) -> None:
    """Find what is missing of the sets before any work starts.

    Raises:
        ConfigError: the first mistake; names the set and the file.
    """
    with blaming("evaluation."):
        evaluation.check()


def check_measured(evaluation: EvaluationConfig, run: RunConfig) -> None:
    """Find out whether a run's models have anything to be measured by.

    Raises:
        ConfigError: they do not; says why.
    """
    if not evaluation.measurements(run.objective, run.tokenizer):
        kinds = "evaluation.{retrieval,classification,choice,captioning,judgement}.NAME"
        reasons = evaluation.refusals(run.objective, run.tokenizer) or [
            f"no protocol has a set to read; set {kinds}"
        ]
        raise ConfigError(f"evaluation: nothing can be measured: {'; '.join(reasons)}")


class Measured(NamedTuple):
    """What a checkpoint's evaluation gives."""

    outcomes: dict[str, Outcomes]
    """Of single items, by `set/` and the first part of the names of metrics."""
    step: int
    """The checkpoint's."""
    pictures: Mapping[str, Image.Image]
    """By name: `reconstructions` of hidden patches, if that is the objective; what went best and worst."""

    @property
    def metrics(self) -> dict[str, float]:
        """By `set/metric`."""
        return named_metrics(self.outcomes)


def measure_checkpoint(
    checkpoint: Path, evaluation: EvaluationConfig, features: Folder | None = None
) -> Measured:
    """What a Ray task does: load a checkpoint, measure it and look at it.

    Args:
        features: where what models gave of images and texts is kept; None keeps nothing.

    Raises:
        UserError: its features are not finite, or a set has too few images for a protocol.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective, run = load_model(checkpoint, device)
    step = steps_done(checkpoint)
    try:
        measurements = evaluation.measurements(run.objective, run.tokenizer)
        store = None if features is None else open_store(checkpoint, features)
        outcomes = measure(make_embedder(objective, run, store), measurements)
    except NoOutcomesError as error:
        raise UserError(f"{checkpoint} cannot be measured: {error}") from error
    progress = min(1.0, max(0, step - 1) / max(1, run.num_masked_steps))
    rebuilt = draw_reconstructions(objective, run, evaluation, progress=progress)
    pictures = {} if rebuilt is None else {"reconstructions": rebuilt}
    return Measured(outcomes, step, pictures | _examples(measurements, outcomes))


def _examples(
    measurements: Sequence[Measurement], outcomes: Mapping[str, Outcomes]
) -> dict[str, Image.Image]:
    """Pictures of what went best and worst, by protocol and set."""
    found = {}
    for data, protocol in measurements:
        start = f"{data.name}/"
        own = {key.removeprefix(start): one for key, one in outcomes.items() if key.startswith(start)}
        for name, examples in protocol.examples(data, own, count=EXAMPLES).items():
            found[f"{name}-of-{data.name}"] = example_sheet(examples)
    return found


def measure_model(objective: Objective, run: RunConfig, evaluation: EvaluationConfig) -> dict[str, float]:
    """Every metric that the objective allows and sets are given for, by `set/metric`."""
    measurements = evaluation.measurements(run.objective, run.tokenizer)
    return named_metrics(measure(make_embedder(objective, run), measurements))


def draw_reconstructions(
    objective: Objective, run: RunConfig, evaluation: EvaluationConfig, *, progress: float
) -> Image.Image | None:
    """What the objective rebuilds of the first images of the first set; None if it rebuilds no pictures."""
    if not evaluation.sets:
        return None
    images = make_embedder(objective, run).load(evaluation.sets[0].tables[0].first_images(PICTURES))
    return reconstructions(
        objective.eval(),
        images,
        normalization=run.data.normalization,
        progress=progress,
        generator=torch.Generator(images.device).manual_seed(run.seed),
        image_scale=max(1, 128 // run.image_encoder.image_size),
    )


def _as_task(checkpoint: Path, evaluation: EvaluationConfig, machine: MachineConfig) -> Measured:
    """`measure_checkpoint` where the cluster has room for it."""
    import ray
    from ray.exceptions import RayTaskError

    task: Any = ray.remote(num_cpus=1, num_gpus=int(machine.use_gpu))(_measure_there)
    try:
        return ray.get(task.remote(checkpoint.absolute(), absolute_paths(evaluation), machine.absolute()))
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None


def _measure_there(checkpoint: Path, evaluation: EvaluationConfig, machine: MachineConfig) -> Measured:
    """On a node that may have a disk of its own: what it lacks is in the storage."""
    ensure_here(checkpoint, machine)
    bring_sets(evaluation, machine)
    return measure_checkpoint(checkpoint, evaluation, feature_folder(machine))


def bring_sets(evaluation: EvaluationConfig, machine: MachineConfig) -> None:
    """Bring what is not on this node of the sets, where it lies in the work folder of another one."""
    for file in (place.local_path for data in evaluation.sets for place in data.sources):
        there = file and machine.published(file)
        if file and there and not file.exists() and file.name in there.parent.names():
            take(there.parent, file)
