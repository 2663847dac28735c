"""Ray Jobs: any command of `vlp` on a running cluster, followed to its end."""

import asyncio
import logging
import os
import shlex
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.config.errors import UserError
from pipelines.config.machine import read_settings
from pipelines.config.secrets import HIDDEN, without_secrets

EXCLUDED = [".git", ".venv", "venv", "results", "**/__pycache__", "tests"]
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def submit(arguments: list[str], *, address: str | None, submission_id: str | None) -> int:
    """Run `vlp ARGUMENTS` as a job with this folder as its working directory; returns its exit code.

    Raises:
        UserError: the settings are wrong, no cluster answers, or the job's name is taken.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for logger in ("ray", "ray.dashboard"):  # Ray sets the level of some by itself
        logging.getLogger(logger).setLevel(logging.WARNING)
    # It would warn of each folder that it leaves out by itself; all of them are in `EXCLUDED`.
    os.environ.setdefault("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "")
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    entrypoint = job_command(arguments, address)
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=entrypoint,
            submission_id=submission_id,
            runtime_env={"working_dir": str(Path.cwd()), "excludes": EXCLUDED},
            entrypoint_num_cpus=0,
        )
    except ConnectionError as error:
        raise UserError(
            f"--address: no Ray cluster answers at {address}; start one with `ray start --head`"
        ) from error
    except AuthenticationError as error:
        raise UserError(
            f"--address: the cluster at {address} has another token; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH as its head has them"
        ) from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"the cluster at {address} does not take the job: {reason}") from error
    print(f"[submit] job {job} on {address}: {entrypoint}", flush=True)
    try:
        asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(f"[submit] the job goes on; stop it with: ray job stop --address {address} {job}", flush=True)
        return 130
    return _exit_code(client, job)


def job_command(arguments: list[str], address: str) -> str:
    """The shell command that the cluster runs.

    Settings are checked here, so that a mistake costs no job. Results go to a folder that outlives the
    job's copy of this one. A cluster on this machine runs this interpreter, another one its own `python`.
    """
    settings = [a for a in arguments[1:] if "=" in a or a.endswith((".yaml", ".yml"))]
    _, machine = read_settings(settings)
    is_here = urlsplit(address).hostname in ("127.0.0.1", "localhost")
    interpreter = sys.executable if is_here else "python"
    storage = f"machine.storage={machine.storage.absolute()}"
    command = shlex.join([interpreter, "-u", "-m", "pipelines", *arguments, storage])
    if (shown := without_secrets(command)) != command:
        raise UserError(
            f"{shown}: {HIDDEN} is a password or token, and the cluster shows the commands of its jobs to "
            "everyone; set it in the environment of the cluster, such as MLFLOW_TRACKING_PASSWORD"
        )
    return command


async def _follow(client: object, job: str) -> None:
    async for text in client.tail_job_logs(job):  # pyright: ignore[reportAttributeAccessIssue]
        print(text, end="", flush=True)


def _exit_code(client: object, job: str) -> int:
    while True:
        info = client.get_job_info(job)  # pyright: ignore[reportAttributeAccessIssue]
        if info.status.is_terminal():
            break
        time.sleep(0.5)
    print(f"[submit] job {job}: {info.status}", flush=True)
    if info.driver_exit_code is not None:
        return info.driver_exit_code
    return 0 if info.status == "SUCCEEDED" else 1
