"""`vlp runs`: what MLflow holds, in the terminal."""

from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.group import read_machine

if TYPE_CHECKING:
    from pipelines.tracking.store import Store

SETTINGS = click.argument("settings", nargs=-1, metavar="[machine.KEY=VALUE]...")
EXPERIMENT = click.option("--experiment", help="Of these runs alone; else of all experiments.")


class Runs(click.Group):
    """Lists where no other command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As of `list`, unless another command leads them."""
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("runs", cls=Runs)
def runs() -> None:
    """List tracked runs, compare two, follow one to its origin, register its model.

    Example: vlp runs --where "tags.objective = 'contrastive' and metrics.`train/loss` < 3"
    """


@click.command("list")
@SETTINGS
@click.option("--where", default="", help="Filter in MLflow's search language.")
@click.option("--metric", "metrics", multiple=True, help="Metric to show; may be repeated.")
@EXPERIMENT
def list_command(
    settings: tuple[str, ...], where: str, metrics: tuple[str, ...], experiment: str | None
) -> None:
    """List runs, the newest first.

    Example: vlp runs --where "tags.mask = 'cluster'" --metric val/scenes/text_to_image/recall@1
    """
    from pipelines.tracking.runs import table

    store = _store(settings, experiment)
    header, rows = table(store.runs(where), [store.key(metric) for metric in metrics])
    _print(header, rows, empty="no runs")


@click.command("compare")
@click.argument("first")
@click.argument("second")
@SETTINGS
@EXPERIMENT
def compare(first: str, second: str, settings: tuple[str, ...], experiment: str | None) -> None:
    """Print the settings and results in which two runs differ, each named by its id or its name.

    Example: vlp runs compare clip flip
    """
    from pipelines.tracking.runs import differences

    store = _store(settings, experiment)
    one, other = store.run(first), store.run(second)
    rows = [list(row) for row in differences(one, other)]
    _print(["", f"{one.name} {one.id[:8]}", f"{other.name} {other.id[:8]}"], rows, empty="no difference")


@click.command("lineage")
@click.argument("name")
@SETTINGS
@EXPERIMENT
def lineage(name: str, settings: tuple[str, ...], experiment: str | None) -> None:
    """Follow a run, named by its id or its name, from its metrics to the list of URLs.

    Example: vlp runs lineage flip
    """
    from pipelines.tracking.runs import origins

    store = _store(settings, experiment)
    waiting = [(0, "", store.run(name))]
    while waiting:
        depth, what, run = waiting.pop(0)
        indent = "  " * depth
        click.echo(f"{indent}{what}{': ' if what else ''}run {run.name} ({run.id})")
        for step, model in sorted(run.models.items()):
            click.echo(f"{indent}  model of step {step}: models:/{model}")
        for use, dataset, digest, place in run.datasets:
            click.echo(f"{indent}  {use} on {dataset}: {place} ({digest[:12]})")
        if "url_list" in run.params:
            click.echo(f"{indent}  URL list: {run.params['url_list']}")
        made = [(what, store.runs(f"params.output = '{folder}'")) for what, folder in origins(run).items()]
        waiting = [(depth + 1, what, found[0]) for what, found in made if found] + waiting


@click.command("register")
@click.argument("run")
@click.argument("name")
@SETTINGS
@click.option("--metric", help="Take the run's model that is best by it; else the last one.")
@click.option("--alias", default="champion", show_default=True, help="Of the registered version.")
def register(run: str, name: str, settings: tuple[str, ...], metric: str | None, alias: str) -> None:
    """Register a model of a run under a name: models:/NAME@ALIAS.

    Example: vlp runs register flip best_flip --metric val/scenes/text_to_image/recall@1
    """
    store = _store(settings, None)
    version = store.register(store.run(run), name, metric=metric, alias=alias)
    click.echo(f"models:/{name}/{version} is models:/{name}@{alias}")


for command in (list_command, compare, lineage, register):
    runs.add_command(command)


def _store(settings: tuple[str, ...], experiment: str | None) -> "Store":
    machine = read_machine(settings)
    from pipelines.tracking.store import Store

    return Store(machine.mlflow_uri, experiment or "")


def _print(header: list[str], rows: list[list[str]], *, empty: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return click.echo(empty)
    table: Any = Table(box=SIMPLE_HEAD)
    for heading in header:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    widest = Console(width=10_000).measure(table).maximum
    Console(width=max(widest, Console().width), markup=False).print(table)
