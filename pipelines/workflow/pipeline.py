"""The whole pipeline: URL list -> shards -> document frequencies -> runs -> evaluation -> report."""

from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pipelines.checkpoints.checkpoint import CONFIG, read_run
from pipelines.checkpoints.mirror import check_mirror
from pipelines.compute.cluster import check_gpus_here, connect_for_training
from pipelines.config.identity import file_digest, fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import flat_params, to_dict
from pipelines.corpus.corpus import URL_LIST, corpus_evaluation, make_corpus, serve_corpus
from pipelines.evaluation.evaluate import EvaluateConfig, evaluate, evaluation_identity
from pipelines.ingest.download import download
from pipelines.ingest.settings import DownloadConfig
from pipelines.shards.docfreq import docfreq
from pipelines.tracking.environment import environment_lock, environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.training.checks import check_runs
from pipelines.training.identity import run_identity
from pipelines.training.mask_preview import preview_masks
from pipelines.training.pretrain import pretrain
from pipelines.workflow.plan import PipelineConfig, Plan, check_before_data
from pipelines.workflow.report import Row, write_report
from pipelines.workflow.stages import Done, Stages
from vlp.evaluation.config import EvaluationConfig
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet


def run_pipeline(config: PipelineConfig, *, machine: MachineConfig, journal: Journal) -> list[Row]:
    """Do what is not done yet of every stage; returns the rows of the final table.

    Raises:
        ConfigError: a stage's settings are wrong; found before the first stage starts.
    """
    plan = Plan(config)
    plan.check()
    check_before_data(plan, machine)
    check_mirror(machine.checkpoints.mirror)
    check_gpus_here(machine, machine.num_gpus)
    folder = (machine.storage / config.name).absolute()
    _begin(config, folder, journal)
    stages = Stages(folder, journal)
    with ending(journal):
        connect_for_training(machine)
        evaluation, shards, tables = prepare_data(plan, stages, machine)
        runs = plan.runs(shards.folder, tables)
        check_runs(runs, machine)
        trained = [_pretrain(run, stages, machine) for run in runs]
        measured = [
            _evaluate(run, done, evaluation, stages, machine) for run, done in zip(runs, trained, strict=True)
        ]
        rows = [Row.of(*parts) for parts in zip(runs, trained, measured, strict=True)]
        masks = {
            run.name: read_run(done.folder / CONFIG).mask for run, done in zip(runs, trained, strict=True)
        }
        picture = preview_masks(runs[0], ShardSet(shards.folder), masks)
        stages.run("report", partial(write_report, rows, picture), settings=config, identity=[rows, masks])
    return rows


def pipeline_journal(config: PipelineConfig, machine: MachineConfig) -> Journal:
    """The record of one pipeline; the same settings go on in the same record."""
    label = f"{config.name}-{fingerprint(to_dict(config))[:8]}"
    return Journal((machine.storage / "journals" / config.name / label).absolute())


def prepare_data(plan: Plan, stages: Stages, machine: MachineConfig) -> tuple[EvaluationConfig, Done, Path]:
    """The stages before training: what to evaluate on, the shards, and the folder of frequency tables."""
    evaluation, shards = _download(plan, stages, machine)
    return evaluation, shards, _docfreq(plan, shards, stages, machine)


def _begin(config: PipelineConfig, folder: Path, journal: Journal) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    journal.begin(name=config.name, tags=environment_tags() | {"stage": "pipeline"})
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    (folder / "requirements.txt").write_text(environment_lock())
    for file in ("pipeline.yaml", "requirements.txt"):
        journal.artifact(folder / file)
    journal.params(flat_params(config))


def _download(plan: Plan, stages: Stages, machine: MachineConfig) -> tuple[EvaluationConfig, Done]:
    """Make the corpus if there is one, and serve it while it is downloaded."""
    corpus, serve = plan.config.corpus, plan.config.serve
    if corpus is None:
        config = plan.download(Path())
        urls = file_digest(config.list_files())
        work = partial(download, config, machine=machine)
        evaluation = EvaluationConfig()
    else:
        made = stages.run(
            "corpus",
            lambda output, journal: make_corpus(corpus, serve, output),
            settings=corpus,
            identity=[corpus, serve],
        )
        config, urls = plan.download(made.folder / URL_LIST), made.digest
        evaluation = corpus_evaluation(corpus, made.folder)

        def work(output: Path, *, journal: Journal) -> dict[str, Any]:
            with serve_corpus(corpus, serve, made.folder):
                return download(config, output, machine=machine, journal=journal)

    shards = stages.run("download", work, settings=config, identity=[urls, _without_url_list(config)])
    return plan.config.evaluation or evaluation, shards


def _without_url_list(config: DownloadConfig) -> dict[str, Any]:
    return {key: value for key, value in to_dict(config).items() if key != "url_list"}


def _docfreq(plan: Plan, shards: Done, stages: Stages, machine: MachineConfig) -> Path:
    config = plan.docfreq(shards.folder)
    done = stages.run(
        "docfreq",
        partial(docfreq, config, machine=machine),
        settings=config,
        identity=[shards.digest, config.tables],
    )
    return done.folder


def _pretrain(run: RunConfig, stages: Stages, machine: MachineConfig) -> Done:
    return stages.run(
        f"pretrain/{run.name}",
        partial(pretrain, run, machine=machine),
        title=run.name,
        settings=run,
        identity=run_identity(run),
    )


def _evaluate(
    run: RunConfig, trained: Done, evaluation: EvaluationConfig, stages: Stages, machine: MachineConfig
) -> Done:
    """Measure a trained run; its numbers also go to the run's own record, beside its training."""
    config = EvaluateConfig(checkpoint=trained.folder, evaluation=evaluation)

    def work(output: Path, *, journal: Journal) -> dict[str, Any]:
        manifest = evaluate(config, output, machine=machine, journal=journal)
        trained.journal.begin(name=run.name, tags={})
        trained.journal.metrics(
            {f"val/{key}": value for key, value in manifest["metrics"].items()}, step=manifest["step"]
        )
        trained.journal.end("FINISHED")
        return manifest

    return stages.run(
        f"evaluate/{run.name}",
        work,
        title=f"evaluate {run.name}",
        settings=config,
        identity=[trained.digest, evaluation_identity(evaluation)],
    )
