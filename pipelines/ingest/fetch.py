"""The URLs of a shard to the bytes of their images, each with exactly one outcome."""

import hashlib
import queue
import random
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from threading import Thread

from pipelines.ingest.addresses import Resolver
from pipelines.ingest.byte_budget import ByteBudget
from pipelines.ingest.client import Client
from pipelines.ingest.connection import Clock, ConnectionPool
from pipelines.ingest.failure import NO_ANSWER, Download, Failure
from pipelines.ingest.host_queue import HostQueue, Job
from pipelines.ingest.robots import RobotsTxt, opts_out, user_agent
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.web_address import host_of
from vlp.shards.outcome import SUCCESS

BACKOFF_SECONDS = 0.5  # before the first retry; doubled for each further one
IDLE_SECONDS = 1.0  # after which `Fetcher.fetch` says that nothing has come


@dataclass(frozen=True)
class ImageRequest:
    """What is known of an image before it is there."""

    url: str
    digest: str | None = None
    """Of the bytes that the list was made of, if it says so."""


class Fetcher:
    """Fetches URLs in threads, politely, within bounds on time and memory.

    Args:
        num_fetchers: how many there are in all; the limits per host are shared among them.
    """

    def __init__(self, config: DownloadConfig, *, num_fetchers: int = 1) -> None:
        self.config = config
        self.concurrency = max(1, config.host_concurrency // num_fetchers)
        self.interval = num_fetchers / config.host_rate
        self.client = Client(
            resolve=Resolver(config.allowed_networks, num_lookups=config.thread_count),
            pool=ConnectionPool(),
            tls=ssl.create_default_context(),
            budget=ByteBudget(config.max_buffer_bytes, largest=config.max_body_bytes),
            max_body_bytes=config.max_body_bytes,
            max_redirects=config.max_redirects,
            user_agent=user_agent(config.user_agent_token, config.user_agent_contact),
        )
        self.robots = RobotsTxt(self.client, config.user_agent_token) if config.robots_txt == "obey" else None

    @contextmanager
    def fetch(self, requests: Sequence[ImageRequest]) -> Iterator[Iterator[tuple[int, Download] | None]]:
        """Position and answer of every request, as they come; None when none has come for a second.

        Bodies count against `max_buffer_bytes` until `release` is called, which lets others be fetched.
        """
        jobs = [Job(i, request.url, host_of(request.url)) for i, request in enumerate(requests)]
        num_threads = min(self.config.thread_count, len(requests))
        waiting = HostQueue(
            jobs,
            concurrency=self._concurrency(jobs, num_threads),
            interval=self.interval,
            max_pause=self.config.total_timeout,
            max_timeouts=self.config.host_timeouts,
        )
        answers: queue.SimpleQueue[tuple[int, Download] | BaseException] = queue.SimpleQueue()
        threads = [
            Thread(target=self._work, args=(requests, waiting, answers), daemon=True)
            for _ in range(num_threads)
        ]
        for thread in threads:
            thread.start()
        try:
            yield _answers(answers, len(requests))
        finally:
            waiting.close()

    def release(self, download: Download) -> None:
        """The body of an answer is not needed any more."""
        self.client.budget.release(len(download.body or b""))

    def _concurrency(self, jobs: Sequence[Job], num_threads: int) -> int:
        """Requests at a time to one host; half of the threads are left to others, if there are any."""
        is_alone = len({job.host for job in jobs}) == 1
        return self.concurrency if is_alone else min(self.concurrency, max(1, num_threads // 2))

    def _work(
        self,
        requests: Sequence[ImageRequest],
        waiting: HostQueue,
        answers: "queue.SimpleQueue[tuple[int, Download] | BaseException]",
    ) -> None:
        try:
            while (job := waiting.take()) is not None:
                answer = self._attempt(job, requests[job.index], waiting)
                if answer is not None:
                    answers.put((job.index, answer))
                    waiting.finish(job)
        except BaseException as error:  # raised again by whoever waits for the answers
            answers.put(error)

    def _attempt(self, job: Job, request: ImageRequest, waiting: HostQueue) -> Download | None:
        """The outcome of a job, or None if it is tried again later."""
        if waiting.is_silent(job.host):
            return Download("timeout", NO_ANSWER, None)
        started = time.monotonic()
        try:
            body = self._get(request, self.config.total_timeout - job.seconds)
            waiting.note(job.host, timed_out=False)
            return Download(SUCCESS, None, body)
        except Failure as failure:
            waiting.note(job.host, timed_out=failure.outcome == "timeout")
            job.attempts += 1
            job.seconds += time.monotonic() - started
            if failure.may_pass and self._again(job, failure, waiting):
                return None
            return Download(failure.outcome, str(failure), None)

    def _again(self, job: Job, failure: Failure, waiting: HostQueue) -> bool:
        if failure.retry_after:
            waiting.pause(job.host, failure.retry_after)
        wait = BACKOFF_SECONDS * 2 ** (job.attempts - 1) * random.uniform(0.5, 1.5)
        wait = max(wait, failure.retry_after)
        left = self.config.total_timeout - job.seconds
        if job.attempts > self.config.retries or wait >= left:
            return False
        waiting.postpone(job, wait)
        return True

    def _get(self, request: ImageRequest, total: float) -> bytes:
        clock = Clock(timeout=self.config.timeout, total=total)
        if self.robots is not None:
            self.robots.check(request.url, clock)
        content = self.client.get(request.url, clock, self._refuse_opt_outs)
        try:
            self._verify(request, content)
        except BaseException:
            self.client.budget.release(len(content))
            raise
        return content

    def _refuse_opt_outs(self, headers: Message) -> None:
        if opts_out(headers, self.config.user_agent_token, self.config.disallowed_header_directives):
            raise Failure("opt_out", "disallowed by X-Robots-Tag")

    def _verify(self, request: ImageRequest, content: bytes) -> None:
        if self.config.verify_hash is None or not request.digest:
            return
        digest = hashlib.new(self.config.verify_hash[1], content).hexdigest()
        if digest != request.digest.lower():
            raise Failure("hash_mismatch", f"{self.config.verify_hash[1]} is {digest}")


def _answers(
    answers: "queue.SimpleQueue[tuple[int, Download] | BaseException]", count: int
) -> Iterator[tuple[int, Download] | None]:
    while count:
        try:
            answer = answers.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            yield None
            continue
        if isinstance(answer, BaseException):
            raise answer
        count -= 1
        yield answer
