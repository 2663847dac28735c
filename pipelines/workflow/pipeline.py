"""The whole pipeline: URL list -> shards -> document frequencies -> runs -> evaluation -> report."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from pipelines.checkpoints.checkpoint import read_run
from pipelines.checkpoints.store import RunManifest
from pipelines.compute.cluster import check_gpus_here, connect_for_training, joins_cluster, ray_tags
from pipelines.config.errors import UserError
from pipelines.config.identity import file_digest, fingerprint
from pipelines.config.machine import MachineConfig, machine_params
from pipelines.config.plugins import with_digests
from pipelines.config.settings import flat_params, to_dict
from pipelines.corpus.corpus import URL_LIST, CorpusManifest, make_corpus, serve_corpus, with_sets
from pipelines.evaluation.embed import digests
from pipelines.evaluation.evaluate import (
    EvaluateConfig,
    EvaluationManifest,
    evaluate,
    evaluation_identity,
)
from pipelines.ingest.download import download
from pipelines.ingest.remote_list import list_on_this_machine
from pipelines.reports.comparison import Comparison, compare
from pipelines.reports.folders import INDEX, Entry, Index, entry_of
from pipelines.reports.record import track_comparison
from pipelines.shards.docfreq import DocfreqManifest, docfreq
from pipelines.tracking.environment import environment_lock, environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.tracking.server import browse
from pipelines.tracking.session import alone
from pipelines.training.checks import named
from pipelines.training.mask_preview import preview_masks
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import ResolvedRun, resolve
from pipelines.training.step_times import StepTimesConfig, StepTimesManifest, step_times
from pipelines.workflow.page import PAGE, write_page
from pipelines.workflow.plan import PipelineConfig, Plan, check_before_data, started_from
from pipelines.workflow.report import ReportManifest, write_report
from pipelines.workflow.stages import Done, Stages
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig
from vlp.shards.contents import ShardsManifest
from vlp.shards.published import put

ABOUT = ("pipeline.yaml", "requirements.txt")
"""Files that say what a pipeline was run by."""


def run_pipeline(config: PipelineConfig, *, machine: MachineConfig, journal: Journal) -> Comparison:
    """Do what is not done yet of every stage; returns what the final table shows.

    Raises:
        ConfigError: a stage's settings are wrong; found before the first stage starts.
    """
    plan = Plan(config)
    plan.check()
    check_before_data(plan, machine)
    check_gpus_here(machine, machine.num_gpus)
    folder = (machine.work_folder / config.name).absolute()
    there = machine.published(folder)
    stages = Stages(folder, journal, there)
    with alone(journal.folder, output=folder), _begun(config, folder, journal, machine):
        connect_for_training(machine)
        journal.tags(ray_tags())
        evaluation, shards, tables = prepare_data(plan, stages, machine)
        planned = plan.runs(machine.in_storage(shards.folder), tables)
        runs, trained, measured = [], [], []
        for run, done in _trained(planned, plan.sources(), stages, machine):
            runs.append(run)
            trained.append(done)
            measured.append(_evaluate(run, done, evaluation, stages, machine))
        methods = trained[: len(runs) // config.seeds]
        finished = [read_run(done.folder) for done in methods]
        seconds = _step_times(finished, methods, stages, machine)
        times = [
            done.manifest.steps * seconds.get(run.name, 0)
            for run, done in zip(finished, methods, strict=True)
        ]
        index = Index(config.baseline, _entries(folder, trained, measured, training_seconds=times))
        index.write(folder)
        found = [one for _, one in index.measured(folder)]
        comparison = compare(config.name, found, baseline=config.baseline)
        masks = {run.name: run.mask for run in finished}
        made = stages.run(
            "report",
            lambda output, *, journal: write_report(comparison, found, preview_masks(runs[0], masks), output),
            ReportManifest,
            settings=config,
            identity=[comparison.rows, [done.digest for done in measured], masks],
            within=journal,
        )
        track_comparison(
            comparison,
            made.folder,
            journal,
            runs={run.name: done.journal.folder for run, done in zip(finished, methods, strict=True)},
        )
        write_page(folder, comparison, stages, browse=browse(machine))
        if there:
            for name in (PAGE, INDEX, *ABOUT):
                put(folder / name, there)
    return comparison


def pipeline_journal(config: PipelineConfig, machine: MachineConfig) -> Journal:
    """The record of one pipeline; the same settings go on in the same record."""
    label = f"{config.name}-{fingerprint(with_digests(to_dict(config)))[:8]}"
    return Journal((machine.work_folder / "journals" / config.name / label).absolute())


def prepare_data(
    plan: Plan, stages: Stages, machine: MachineConfig
) -> tuple[EvaluationConfig, Done[ShardsManifest], Path]:
    """The stages before training: what to evaluate on, the shards, and the folder of frequency tables."""
    evaluation, shards = _download(plan, stages, machine)
    return evaluation, shards, _docfreq(plan, shards, stages, machine)


@contextmanager
def _begun(config: PipelineConfig, folder: Path, journal: Journal, machine: MachineConfig) -> Iterator[None]:
    """The record of the pipeline, from its settings to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    journal.begin(name=config.name, tags=environment_tags() | {"stage": "pipeline"})
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    (folder / "requirements.txt").write_text(environment_lock())
    for file in ABOUT:
        journal.artifact(folder / file)
    journal.params(flat_params(config) | machine_params(machine))
    with ending(journal):
        yield


def _download(
    plan: Plan, stages: Stages, machine: MachineConfig
) -> tuple[EvaluationConfig, Done[ShardsManifest]]:
    """Make the corpus if there is one, and serve it while it is downloaded."""
    corpus, serve = plan.config.corpus, plan.config.serve
    evaluation = plan.config.evaluation or EvaluationConfig()
    serving: Callable[[], AbstractContextManager[object]] = nullcontext
    downloading = machine
    if corpus is None:
        config = plan.download(Path())
        with list_on_this_machine(config) as here:
            urls = file_digest(here.list_files())
    else:
        made = stages.run(
            "corpus",
            lambda output, journal: make_corpus(corpus, serve, output),
            CorpusManifest,
            settings=corpus,
            identity=[corpus, serve],
        )
        config, urls = plan.download(made.folder / URL_LIST), made.digest
        evaluation = with_sets(evaluation, corpus, made.folder)
        serving = partial(serve_corpus, corpus, serve, made.folder)
        if joins_cluster(machine) and not serve.is_for_all:
            downloading = replace(machine, data_workers=0)

    def work(output: Path, *, journal: Journal) -> ShardsManifest:
        there = machine.in_storage(output)
        with serving():
            made = download(config, there, machine=downloading, journal=journal)
        if not made.num_samples:
            raise UserError(
                f"download: every URL failed; outcomes.csv in {there} counts the reasons; mend what it "
                "says, and remove that folder"
            )
        return made

    identity = [urls, config.identity]
    shards = stages.run("download", work, ShardsManifest, settings=config, identity=identity)
    return evaluation, shards


def _docfreq(plan: Plan, shards: Done[ShardsManifest], stages: Stages, machine: MachineConfig) -> Path:
    config = plan.docfreq(machine.in_storage(shards.folder))
    done = stages.run(
        "docfreq",
        partial(docfreq, config, machine=machine),
        DocfreqManifest,
        settings=config,
        identity=[shards.digest, config.tables],
    )
    return done.folder


def _trained(
    runs: list[RunConfig], sources: Mapping[str, str], stages: Stages, machine: MachineConfig
) -> Iterator[tuple[ResolvedRun, Done[RunManifest]]]:
    """Train one run after another; those that wait for no other's weights are all looked at before.

    Args:
        sources: name of a run -> name of the one whose weights it starts from.
    """
    ready = {run.name: resolve_named(run, machine) for run in runs if run.name not in sources}
    folders: dict[str, Path] = {}
    for run in runs:
        if source := sources.get(run.name):
            ready[run.name] = resolve_named(started_from(run, folders[source]), machine)
        done = _pretrain(ready[run.name], stages, machine)
        folders[run.name] = done.folder
        yield ready[run.name], done


def _pretrain(run: ResolvedRun, stages: Stages, machine: MachineConfig) -> Done[RunManifest]:
    return stages.run(
        f"pretrain/{run.config.name}",
        partial(pretrain, run, machine=machine),
        RunManifest,
        settings=run.config,
        identity=run.identity,
    )


def _evaluate(
    run: ResolvedRun,
    trained: Done[RunManifest],
    evaluation: EvaluationConfig,
    stages: Stages,
    machine: MachineConfig,
) -> Done[EvaluationManifest]:
    """Measure a trained run; a part of its record."""
    config = EvaluateConfig(checkpoint=trained.folder, evaluation=evaluation)
    return stages.run(
        f"evaluate/{run.config.name}",
        partial(evaluate, config, machine=machine),
        EvaluationManifest,
        settings=config,
        identity=[trained.digest, evaluation_identity(evaluation, digests(machine))],
        within=trained.journal,
    )


def _entries(
    folder: Path,
    trained: list[Done[RunManifest]],
    measured: list[Done[EvaluationManifest]],
    *,
    training_seconds: list[float],
) -> list[Entry]:
    """What was measured of every run, in the pipeline's folder.

    Args:
        trained: all methods by the first seed, then all by the next.
        measured: in the same order.
        training_seconds: of each method.
    """
    return [
        entry_of(
            folder,
            evaluation=one.folder,
            run=run.folder,
            journal=run.journal.folder,
            seconds=training_seconds[place % len(training_seconds)],
        )
        for place, (run, one) in enumerate(zip(trained, measured, strict=True))
    ]


def _step_times(
    runs: list[RunConfig], trained: list[Done[RunManifest]], stages: Stages, machine: MachineConfig
) -> dict[str, float]:
    """Seconds per step of the runs that were trained."""
    folders = {run.name: done.folder for run, done in zip(runs, trained, strict=True) if done.manifest.steps}
    if not folders:
        return {}
    config = StepTimesConfig(runs=folders)
    done = stages.run(
        "step_times",
        partial(step_times, config, machine=machine),
        StepTimesManifest,
        settings=config,
        identity=[[done.digest for done in trained], machine.worker_counts, machine.use_gpu, machine.compile],
    )
    return done.manifest.seconds


def resolve_named(config: RunConfig, machine: MachineConfig) -> ResolvedRun:
    """A run of several, resolved; it keeps no model, as the others would have theirs beside it.

    Raises:
        ConfigError: a mistake in it; names the run.
    """
    with named(config):
        run = resolve(config, machine)
    return run.without_model()
