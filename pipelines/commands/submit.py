"""`vlp submit`: any other command as a job of a Ray cluster."""

import sys

import click


@click.command("submit", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--address", help="Dashboard of the cluster, such as http://127.0.0.1:8265; else RAY_ADDRESS.")
@click.option("--submission-id", help="Name of the job; the same name is not submitted twice.")
def submit(arguments: tuple[str, ...], address: str | None, submission_id: str | None) -> None:
    """Run any other command as a job on a Ray cluster, follow its log, and return its exit code.

    Example: vlp submit run conf/pipeline/demo.yaml conf/machine/cluster.yaml
    """
    from pipelines.compute.jobs import submit

    sys.exit(submit(list(arguments), address=address, submission_id=submission_id))
