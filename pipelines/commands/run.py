"""`vlp run`: the whole pipeline."""

import click

from pipelines.commands.group import read, settings_command


@settings_command("run")
def run(settings: tuple[str, ...]) -> None:
    """Run a whole pipeline, or go on where it was.

    Example: vlp run conf/pipeline/demo.yaml conf/machine/laptop.yaml
    """
    layers, machine = read(settings)
    from pipelines.workflow.plan import Plan

    plan = Plan.read(layers)
    plan.check()
    from pipelines.reports.summary import remarks, summary_tables
    from pipelines.reports.tables import print_table
    from pipelines.tracking.session import tracked
    from pipelines.workflow.page import PAGE
    from pipelines.workflow.pipeline import pipeline_journal, run_pipeline

    config = plan.config
    with tracked(machine, experiment=config.name):
        comparison = run_pipeline(config, machine=machine, journal=pipeline_journal(config, machine))
        for table in summary_tables(comparison):
            print_table(table)
        for remark in remarks(comparison):
            click.echo(remark)
        click.echo(f"results: {machine.in_storage(machine.work_folder / config.name) / PAGE}")
