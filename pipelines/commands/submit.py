"""`vlp submit`: any other command as a job of a Ray cluster."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from pipelines.commands.group import SUBMITTED_BY

if TYPE_CHECKING:
    from pipelines.compute.jobs import Begun, Jobs
    from pipelines.compute.package import Package

STOP_SECONDS = 120
"""What a job has for its end, which writes a checkpoint; Ray gives it three by itself."""


@click.command("submit", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--address", help="Dashboard of the cluster, such as http://127.0.0.1:8265.")
@click.option("--submission-id", help="Name of the job; else one of the command and what travels with it.")
@click.option("--exclude", multiple=True, help="What does not travel, as in a .gitignore; may be repeated.")
@click.option("--storage", help="Where outputs go that every node sees; else machine.storage.")
@click.option("--dry-run", is_flag=True, help="Show the job and what travels with it, and submit nothing.")
def submit(
    arguments: tuple[str, ...],
    address: str | None,
    submission_id: str | None,
    exclude: tuple[str, ...],
    storage: str | None,
    dry_run: bool,
) -> None:
    """Run any other command as a job on a Ray cluster, follow its log, and return its exit code.

    The job gets a copy of this folder, without what .gitignore leaves out. The same command again follows
    the job if it still runs, and goes on with its work if it has ended. `vlp jobs` lists and stops jobs.

    Example: vlp submit run conf/pipeline/demo.yaml conf/machine/cluster.yaml
    """
    from pipelines.compute.jobs import Job, Jobs, address_of
    from pipelines.compute.package import Package

    address = address_of(address)
    package = Package.of(Path.cwd(), exclude=exclude)
    command, outputs = _job_command(arguments, address, package, storage)
    if dry_run:
        _show(command, package)
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "job.zip"
        name = submission_id or _name(arguments, command, package.write(archive))
        jobs = Jobs.of(address)
        begun = jobs.begin(Job(name, command, archive, _variables()))
    what = command if begun.is_new else "is running already"
    click.echo(f"[submit] job {begun.submission_id} on {address}: {what}")
    code = follow(jobs, begun)
    for output in outputs:
        click.echo(f"[submit] output: {output}")
    sys.exit(code)


def follow(jobs: "Jobs", begun: "Begun") -> int:
    """Show the log of a job to its end; returns its exit code, 130 for Ctrl-C, which leaves the job."""
    from pipelines.config.errors import is_terminated

    job, at = begun.submission_id, f"--address {jobs.address}"
    try:
        code = jobs.follow(job)
    except KeyboardInterrupt as stop:
        click.echo(
            f"[submit] the job goes on; `vlp jobs attach {job} {at}` follows it, `vlp jobs stop` ends it"
        )
        if is_terminated(stop):
            raise
        return 130
    click.echo(f"[submit] job {job}: {jobs.details(job).status.value}")
    return code


def _job_command(
    arguments: Sequence[str], address: str, package: "Package", storage: str | None
) -> tuple[str, list[str]]:
    """The shell command that the cluster runs, and what it writes.

    A cluster on this machine runs this interpreter, another one its own `python`.
    """
    from pipelines.commands.job_arguments import Places, find_command, given_settings, job_arguments
    from pipelines.config.errors import UserError
    from pipelines.config.machine import MachineConfig
    from pipelines.config.secrets import HIDDEN, without_secrets
    from vlp.shards.storage.address import open_folder

    main = click.get_current_context().find_root().command
    assert isinstance(main, click.Group)
    names, click_command, given = find_command(arguments, main)
    settings = given_settings(click_command, given)
    is_here = urlsplit(address).hostname in ("127.0.0.1", "localhost")
    machine = settings[1] if settings else MachineConfig()
    shared = open_folder(storage) if storage else machine.storage
    if not is_here and shared != shared.absolute():
        raise UserError(
            f"machine.storage is {shared}, a folder of this machine, and the cluster is at {address}; give "
            "one that every node sees by its absolute path, or in an object store, in machine.storage or "
            "--storage"
        )
    places = Places(package, shared.absolute(), replace(machine, storage=shared).work_folder, is_here)
    interpreter = sys.executable if is_here else "python"
    rest = job_arguments(names, click_command, given, places)
    command = shlex.join([interpreter, "-u", "-m", "pipelines", *rest])
    if (shown := without_secrets(command)) != command:
        raise UserError(
            f"{shown}: {HIDDEN} is a password or token, and the cluster shows the commands of its jobs to "
            "everyone; set it in the environment of the cluster, such as MLFLOW_TRACKING_PASSWORD"
        )
    return command, places.outputs


def _name(arguments: Sequence[str], command: str, digest: str) -> str:
    from pipelines.config.identity import fingerprint

    return f"vlp-{arguments[0]}-{fingerprint(command, digest)[:8]}"


def _variables() -> dict[str, str]:
    from vlp import __version__

    return {SUBMITTED_BY: __version__, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}


def _show(command: str, package: "Package") -> None:
    from vlp.core.messages import size_text

    click.echo(f"job: {command}")
    click.echo(f"travels: {len(package.files):,} files, {size_text(package.num_bytes)}, of {package.folder}")
    for file in package.files:
        click.echo(f"  {file}")
