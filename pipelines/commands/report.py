"""`vlp report`: what was measured as one page."""

from pathlib import Path

import click

from pipelines.commands.group import LOCAL, read_machine


@click.command("report")
@click.argument("runs", nargs=-1, metavar="[RUNS]... [machine.KEY=VALUE]...")
@click.option("-o", "--output", type=LOCAL, default="report", show_default=True, help="Folder of the pages.")
@click.option("--title", help="Of the page; else what it is of.")
@click.option("--baseline", help="Method that the others' differences are from.")
@click.option("--experiment", help="Of MLflow: all of its runs, or where RUNS are looked for.")
@click.option("--where", help="Add MLflow's runs that a filter finds, in its search language.")
def report(
    runs: tuple[str, ...],
    output: Path,
    title: str | None,
    baseline: str | None,
    experiment: str | None,
    where: str | None,
) -> None:
    """Lay out what was measured as the papers' tables, with their numbers below, on one page.

    RUNS are folders of results, of pipelines, sweeps, runs or evaluations, or runs of MLflow, by id or name;
    machine.* settings say where MLflow is, and `vlp settings machine` lists them.

    Example: vlp report results/demo -o demo_report
    """
    places = [run for run in runs if "=" not in run]
    machine = read_machine(tuple(run for run in runs if "=" in run))
    from pipelines.config.errors import ConfigError
    from pipelines.reports.report import make_report

    if not places and experiment is None and where is None:
        raise ConfigError("name what the report is of: a folder of results, a run, --experiment or --where")
    make_report(
        places,
        output,
        title=title or ", ".join([Path(place).name for place in places] or [experiment or "report"]),
        baseline=baseline,
        experiment=experiment,
        where=where,
        machine=machine,
    )
    for name in ("report.html", "report.md"):
        click.echo(f"{name:12} {output / name}")
