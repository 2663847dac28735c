"""`vlp doctor`: whether a machine or a cluster has what runs need."""

import sys

import click

from pipelines.commands.group import read_machine, settings_command


@settings_command("doctor")
@click.option("--url", help="Address that every node fetches, to try names, requests and their rate.")
def doctor(settings: tuple[str, ...], url: str | None) -> None:
    """Try all that runs need of a machine or a cluster; exit code 1 if anything is bad.

    Ray and its token, the nodes and what is installed there, a gradient over all of them, their limits and
    disks, the storage, MLflow. Each line is good, or bad with its remedy.

    Example: vlp doctor conf/machine/laptop.yaml
    """
    machine = read_machine(settings)
    from pipelines.doctor.doctor import examine_machine

    is_good = True
    for finding in examine_machine(machine, url=url):
        click.echo(str(finding))
        is_good = is_good and finding.verdict != "bad"
    sys.exit(0 if is_good else 1)
