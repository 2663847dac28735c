"""Ray Jobs: a command on a running cluster, begun once, followed to its end."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from pipelines.config.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60


def address_of(given: str | None) -> str:
    """The dashboard of the cluster: as given, of the environment, or of this machine."""
    return given or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS


class Job(NamedTuple):
    """A command for a cluster."""

    name: str
    """Its submission id, to which ` -2` and so on are added where it is begun again."""
    entrypoint: str
    """The shell command."""
    archive: Path
    """What travels with it."""
    variables: Mapping[str, str]
    """Of its environment."""


class Begun(NamedTuple):
    """A job that a cluster has."""

    submission_id: str
    is_new: bool
    """Whether it was begun now; otherwise it was running already."""


@dataclass(frozen=True)
class Jobs:
    """The jobs of one cluster."""

    address: str
    client: "JobSubmissionClient"

    @classmethod
    def of(cls, address: str) -> "Jobs":
        """Those of the cluster with this dashboard.

        Raises:
            UserError: none answers, or it wants another token.
        """
        from ray.job_submission import JobSubmissionClient

        for module in ("job.sdk", "dashboard_sdk"):  # they have set a level of their own
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
        with _answering(address):
            return cls(address, JobSubmissionClient(address))

    def begin(self, job: Job) -> Begun:
        """Begin a job; one of its name that runs is left to run, after one that has ended it is begun anew.

        Raises:
            UserError: the cluster does not take it.
        """
        of_name = [one for one in self.all() if _is_of(one.submission_id or "", job.name)]
        for one in of_name:
            if one.submission_id and not one.status.is_terminal():
                return Begun(one.submission_id, is_new=False)
        submission_id = f"{job.name}-{len(of_name) + 1}" if of_name else job.name
        try:
            with _answering(self.address):
                self.client.submit_job(
                    entrypoint=job.entrypoint,
                    submission_id=submission_id,
                    runtime_env={"working_dir": str(job.archive), "env_vars": dict(job.variables)},
                    entrypoint_num_cpus=0,
                )
        except RuntimeError as error:
            if "already exists" in str(error):  # begun by another process since we looked
                return Begun(submission_id, is_new=False)
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"the cluster at {self.address} does not take the job: {reason}") from error
        return Begun(submission_id, is_new=True)

    def all(self) -> list["JobDetails"]:
        """Every job that was submitted to the cluster, the newest first."""
        with _answering(self.address):
            jobs = [job for job in self.client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)

    def follow(self, submission_id: str) -> int:
        """Print the log of a job from its beginning until it ends; returns its exit code.

        Raises:
            UserError: the cluster has been gone for `PATIENCE_SECONDS`.
        """
        shown = 0
        while True:
            said = 0
            for text in self._said(submission_id):  # from the beginning, also where the connection was lost
                print(text[max(0, shown - said) :], end="", flush=True)
                said += len(text)
                shown = max(shown, said)
            if (job := self._details_soon(submission_id)).status.is_terminal():
                return exit_code(job)
            time.sleep(POLL_SECONDS)

    def log(self, submission_id: str) -> str:
        """What a job has printed so far."""
        self.details(submission_id)
        with _answering(self.address):
            return self.client.get_job_logs(submission_id)

    def stop(self, submission_id: str) -> bool:
        """Have a job end in order, by SIGTERM; whether it was running."""
        self.details(submission_id)
        with _answering(self.address):
            return self.client.stop_job(submission_id)

    def details(self, submission_id: str) -> "JobDetails":
        """What the cluster knows of a job.

        Raises:
            UserError: it has none of the name.
        """
        try:
            with _answering(self.address):
                return self.client.get_job_info(submission_id)
        except RuntimeError as error:
            raise UserError(
                f"{submission_id}: the cluster at {self.address} has no such job; `vlp jobs list` shows them"
            ) from error

    def _details_soon(self, submission_id: str) -> "JobDetails":
        """What the cluster knows of a job; while its head restarts, it is waited for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.details(submission_id)
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def _said(self, submission_id: str) -> Iterator[str]:
        """The log of a job as it grows, until it ends or the connection does.

        It is read in a thread: an interrupt in the midst of a coroutine can be lost.
        """
        texts: Queue[str | None] = Queue()

        async def read() -> None:
            async for text in self.client.tail_job_logs(submission_id):
                texts.put(text)

        def work() -> None:
            with suppress(Exception):  # whether the job has ended is asked anew
                asyncio.run(read())
            texts.put(None)

        Thread(target=work, daemon=True).start()
        return iter(texts.get, None)


def exit_code(job: "JobDetails") -> int:
    """Of a job that has ended, as a shell has it: 143 where SIGTERM ended it."""
    code = job.driver_exit_code
    if code is None:
        return {"SUCCEEDED": 0, "STOPPED": 128 + signal.SIGTERM}.get(str(job.status.value), 1)
    return 128 - code if code < 0 else code


def _is_of(submission_id: str, name: str) -> bool:
    rest = submission_id.removeprefix(name)
    return rest != submission_id and (not rest or rest.removeprefix("-").isdigit())


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Turn what goes wrong on the way to a cluster into one line."""
    from ray.exceptions import AuthenticationError
    from requests import RequestException

    try:
        yield
    except (ConnectionError, RequestException) as error:
        raise UserError(
            f"--address: no Ray cluster answers at {address}; start one with `ray start --head`"
        ) from error
    except AuthenticationError as error:
        raise UserError(
            f"--address: the cluster at {address} asks for its token, and was given none or another; set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH as its head has them"
        ) from error
