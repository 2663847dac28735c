"""The command `vlp`. Everything heavy is imported within the commands, so that help comes at once."""

import sys
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.data import data
from pipelines.commands.group import FOLDER, LOCAL, Vlp
from pipelines.commands.replay import replay

if TYPE_CHECKING:
    from pipelines.config.machine import MachineConfig
    from pipelines.config.settings import Layers
    from vlp.shards.storage.folder import Folder

SETTINGS_HELP = """

SETTINGS are YAML files and `key.path=value` overrides; they merge from left to right, overrides win.
Every command also takes `machine.*` settings, or a file of conf/machine/: where it runs, never its result.
"""


@click.group(cls=Vlp, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="vlp")
def main() -> None:
    """Efficient vision-language pre-training on Ray.

    Start with `vlp run conf/pipeline/demo.yaml conf/machine/laptop.yaml`.
    """


main.add_command(data)
main.add_command(replay)


def command(name: str) -> Any:
    """A subcommand that takes settings; the text about them is added to its help."""

    def wrap(function: Any) -> Any:
        function.__doc__ += SETTINGS_HELP
        return main.command(name)(click.argument("settings", nargs=-1)(function))

    return wrap


def read(settings: tuple[str, ...]) -> "tuple[Layers, MachineConfig]":
    """Settings of the command and of the machine."""
    from pipelines.config.machine import read_settings

    return read_settings(settings)


@command("run")
def run(settings: tuple[str, ...]) -> None:
    """Run a whole pipeline, or go on where it was.

    Example: vlp run conf/pipeline/demo.yaml conf/machine/laptop.yaml
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.tracking.server import ui_command
    from pipelines.tracking.session import tracked
    from pipelines.workflow.pipeline import pipeline_journal, run_pipeline
    from pipelines.workflow.plan import PipelineConfig
    from pipelines.workflow.report import print_table

    config = build(PipelineConfig, layers)
    with tracked(machine, experiment=config.name):
        rows = run_pipeline(config, machine=machine, journal=pipeline_journal(config, machine))
    print_table(rows)
    click.echo(f"results: {machine.storage / config.name}")
    click.echo(f"browse:  {ui_command(machine.tracking_uri, machine.storage)}")


@command("download")
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the shards.")
@click.option("--retry-failed", is_flag=True, help="Then ask again for what failed, into shards of its own.")
@click.option("--only", default="", help="Outcomes to ask again for, such as timeout,dns,http_5xx.")
def download(settings: tuple[str, ...], output: "Folder", retry_failed: bool, only: str) -> None:
    """Download the images of a URL list into shards, or go on where it was.

    Example: vlp download url_list=cc12m.tsv image_size=224 -o shards
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.ingest.download import DownloadConfig, download, plan
    from pipelines.ingest.plan import read_retry
    from pipelines.tracking.session import standalone

    config = build(DownloadConfig, layers)
    retry = read_retry(only) if retry_failed or only else None
    plan(config, output)
    stage = update_wrapper(partial(download, retry=retry), download)
    manifest = standalone("download", stage, config, output, machine=machine)
    click.echo(f"{manifest['num_samples']:,} of {manifest['num_urls']:,} URLs succeeded: {output}")


@command("docfreq")
@click.option("-o", "--output", type=LOCAL, required=True, help="Folder of the table.")
def docfreq(settings: tuple[str, ...], output: Path) -> None:
    """Count in how many captions each token occurs.

    Example: vlp docfreq shards=shards tokenizer.name=clip_bpe -o frequencies
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.shards.docfreq import TABLE, DocfreqConfig, check_shards, docfreq
    from pipelines.tracking.session import standalone

    config = build(DocfreqConfig, layers)
    check_shards(config.shards)
    config.build()
    manifest = standalone("docfreq", docfreq, config, output, machine=machine)
    counts = f"{manifest['num_distinct_tokens']:,} tokens in {manifest['num_documents']:,} captions"
    click.echo(f"{counts}: {output / TABLE}")


@command("fit-codes")
@click.option("-o", "--output", type=LOCAL, required=True, help="The .npy file.")
def fit_codes(settings: tuple[str, ...], output: Path) -> None:
    """Fit a palette of colours, or a vocabulary of visual words, for SimMIM's class targets.

    Example: vlp fit-codes shards=shards target.name=color_clusters -o palette.npy
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.shards.codes import FitCodesConfig, fit
    from pipelines.tracking.session import standalone

    config = build(FitCodesConfig, layers)
    manifest = standalone("fit-codes", fit, config, output, machine=machine)
    click.echo(f"mean squared distance to the nearest code: {manifest['mean_squared_distance']:.4g}")
    click.echo(f"use it: objective.target.name={config.target.name} objective.target.codes={output}")


@command("pretrain")
@click.option("-o", "--output", type=LOCAL, help="Folder of the run; resumed if it exists.")
def pretrain(settings: tuple[str, ...], output: Path | None) -> None:
    """Train one method, or go on with it.

    Example: vlp pretrain conf/run/flip.yaml conf/machine/one_gpu.yaml data.shards=shards mask.mask_ratio=0.75
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.tracking.session import standalone
    from pipelines.training.checks import check_run
    from pipelines.training.identity import check_same_run, run_identity
    from pipelines.training.pretrain import pretrain
    from vlp.run import RunConfig

    config = build(RunConfig, layers)
    check_run(config, machine)
    output = output or machine.storage / "pretrain" / f"{config.name}-{run_identity(config)[:8]}"
    check_same_run(config, output)
    manifest = standalone(config.name, pretrain, config, output, machine=machine)
    click.echo(f"checkpoint: {output / manifest['checkpoint']}")


@command("evaluate")
@click.option("-o", "--output", type=LOCAL, help="Folder of the metrics.")
def evaluate(settings: tuple[str, ...], output: Path | None) -> None:
    """Measure a checkpoint: retrieval, zero-shot classification, kNN, few-shot.

    Example: vlp evaluate checkpoint=results/pretrain/clip-1a2b3c4d evaluation.retrieval.dev=dev.parquet
    """
    layers, machine = read(settings)
    from pipelines.checkpoints.checkpoint import find_checkpoint
    from pipelines.config.settings import build
    from pipelines.evaluation.evaluate import EvaluateConfig, check_evaluation, evaluate
    from pipelines.tracking.session import standalone

    config = build(EvaluateConfig, layers)
    check_evaluation(config.evaluation)
    checkpoint = find_checkpoint(config.checkpoint)
    output = output or checkpoint.parent / "evaluation"
    manifest = standalone("evaluate", evaluate, config, output, machine=machine)
    for key, value in manifest["metrics"].items():
        click.echo(f"{key:32} {value:.4f}")


@command("sweep")
def sweep(settings: tuple[str, ...]) -> None:
    """Search the best settings of a run, or go on with the search.

    Example: vlp sweep conf/sweep/anchor_ratio.yaml conf/machine/laptop.yaml
    """
    layers, machine = read(settings)
    from pipelines.config.settings import build
    from pipelines.sweeps.sweep import SweepConfig, sweep
    from pipelines.tracking.session import tracked

    config = build(SweepConfig, layers)
    with tracked(machine, experiment=config.name):
        best = sweep(config, machine=machine)
    click.echo(f"best: {best.metric} = {best.score:.4f} with {' '.join(best.overrides)}")
    click.echo(f"config: {best.config}\ntrain it: vlp pretrain {best.config}")


@main.command("submit", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--address", help="Dashboard of the cluster, such as http://127.0.0.1:8265; else RAY_ADDRESS.")
@click.option("--submission-id", help="Name of the job; the same name is not submitted twice.")
def submit(arguments: tuple[str, ...], address: str | None, submission_id: str | None) -> None:
    """Run any other command as a job on a Ray cluster, follow its log, and return its exit code.

    Example: vlp submit run conf/pipeline/demo.yaml conf/machine/cluster.yaml
    """
    from pipelines.compute.jobs import submit

    sys.exit(submit(list(arguments), address=address, submission_id=submission_id))


@command("print-config")
def print_config(settings: tuple[str, ...]) -> None:
    """Show a run, pipeline or sweep with every default filled in.

    Example: vlp print-config conf/run/flip.yaml mask.mask_ratio=0.75
    """
    layers, machine = read(settings)
    import yaml

    from pipelines.commands.schemas import parse_any, remarks
    from pipelines.config.settings import to_dict

    config = parse_any(layers, machine)
    resolved = to_dict(config) | {"machine": to_dict(machine)}
    click.echo(yaml.safe_dump(resolved, sort_keys=False) + remarks(config), nl=False)


@command("ui")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
def ui(settings: tuple[str, ...], host: str, port: int) -> None:
    """Open MLflow on the experiments.

    Example: vlp ui
    """
    _, machine = read(settings)
    from pipelines.tracking.server import ui

    click.echo(f"MLflow on http://{host}:{port} (Ctrl-C stops it)")
    sys.exit(ui(machine.mlflow_uri, host=host, port=port))


if __name__ == "__main__":
    main()
