"""`vlp evaluate`: a checkpoint, measured."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read, settings_command


@settings_command("evaluate")
@click.option("-o", "--output", type=LOCAL, help="Folder of the metrics.")
def evaluate(settings: tuple[str, ...], output: Path | None) -> None:
    """Measure a checkpoint by every protocol that its objective and the given sets allow.

    Example: vlp evaluate checkpoint=results/pretrain/clip-1a2b3c4d evaluation.retrieval.dev=dev.parquet

    The checkpoint may also be one that MLflow holds: checkpoint=runs:/RUN_ID or checkpoint=models:/NAME/1
    """
    layers, machine = read(settings)
    from pipelines.checkpoints.checkpoint import find_checkpoint, read_run
    from pipelines.config.settings import build
    from pipelines.evaluation.evaluate import EvaluateConfig, check_evaluation, check_measured, evaluate
    from pipelines.tracking.held import held
    from pipelines.tracking.session import standalone
    from vlp.imports import library_of

    config = build(EvaluateConfig, layers)
    check_evaluation(config.evaluation)
    config = replace(config, checkpoint=held(config.checkpoint, machine))
    checkpoint = find_checkpoint(config.checkpoint)
    check_measured(config.evaluation, read_run(checkpoint))
    output = output or (checkpoint if library_of(checkpoint) else checkpoint.parent) / "evaluation"
    manifest = standalone(
        "evaluate", partial(evaluate, config, machine=machine), output, settings=config, machine=machine
    )
    for key, value in manifest.metrics.items():
        low, high = manifest.intervals[key]
        click.echo(f"{key:32} {value:.4f}  [{low:.4f}, {high:.4f}]")
    for key, one in manifest.groups.items():
        lacks = f"; lacks {', '.join(one.missing)}" if one.missing else ""
        over = f"mean of {', '.join(one.over)}{lacks}"
        click.echo(f"{key:32} {one.value:.4f}  [{one.low:.4f}, {one.high:.4f}]  {over}")
