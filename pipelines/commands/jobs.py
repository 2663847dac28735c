"""`vlp jobs`: what runs on a Ray cluster, and what has run."""

import sys
import time
from collections.abc import Callable
from typing import Any

import click

ADDRESS = click.option("--address", help="Dashboard of the cluster, such as http://127.0.0.1:8265.")
JOB = click.argument("job")


@click.group("jobs")
def jobs() -> None:
    """The jobs of a Ray cluster: list, logs, attach, stop.

    Example: vlp jobs list --address http://head:8265
    """


def _command(function: Callable[..., None]) -> click.Command:
    return jobs.command(function.__name__.strip("_"))(ADDRESS(function))


@_command
def list_(address: str | None) -> None:
    """Show every job: its name, state, start and command."""
    rows = [
        (job.submission_id or "", str(job.status.value), _when(job.start_time), job.entrypoint)
        for job in _jobs(address).all()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for *cells, entrypoint in rows:
        shown = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        click.echo(f"{shown}  {entrypoint}")


@_command
@JOB
def logs(job: str, address: str | None) -> None:
    """Show what a job has printed so far."""
    click.echo(_jobs(address).log(job), nl=False)


@_command
@JOB
def attach(job: str, address: str | None) -> None:
    """Follow a job to its end, and return its exit code; Ctrl-C leaves it."""
    from pipelines.commands.submit import follow
    from pipelines.compute.jobs import Begun

    cluster = _jobs(address)
    cluster.details(job)
    sys.exit(follow(cluster, Begun(job, is_new=False)))


@_command
@JOB
def stop(job: str, address: str | None) -> None:
    """Have a job end in order: it writes a checkpoint, and the same command goes on with it later."""
    was_running = _jobs(address).stop(job)
    click.echo(f"{job}: {'is told to end' if was_running else 'has ended before'}")


def _jobs(address: str | None) -> Any:
    from pipelines.compute.jobs import Jobs, address_of

    return Jobs.of(address_of(address))


def _when(milliseconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime((milliseconds or 0) / 1000))
