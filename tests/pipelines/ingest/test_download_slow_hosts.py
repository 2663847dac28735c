"""A host that answers slowly holds up neither the URLs of others nor, with them, the shard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.ingest.byte_budget import ByteBudget
from pipelines.ingest.failure import Download
from pipelines.ingest.fetch import Fetcher, ImageRequest
from pipelines.ingest.settings import DownloadConfig
from tests.servers.web import QuietHandler, WebServer, serving

LARGEST, GOOD = 400_000, b"g" * 100_000


class Handler(QuietHandler):
    """`/chunked/N` and `/declared/N` send N bytes at once, and end only when they may."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def get(self) -> None:
        kind, _, size = self.path.partition("?")[0].strip("/").partition("/")
        if kind == "good":
            self.answer(200, {}, GOOD)
        elif kind == "declared":
            self.begin(200, {"Content-Length": str(LARGEST)})
            self.wfile.write(b"s" * int(size))
            self.server.is_closing.wait(60)
            self.wfile.write(b"s" * (LARGEST - int(size)))
        else:
            self.begin(200, {"Transfer-Encoding": "chunked"})
            self.wfile.write(b"%x\r\n%s\r\n" % (int(size), b"s" * int(size)))
            self.server.is_closing.wait(60)
            self.wfile.write(b"0\r\n\r\n")


class Server(WebServer):
    def url(self, last: int, path: str) -> str:
        """All of 127.0.0.0/8 is this machine: each number is a host of its own."""
        return f"http://127.0.0.{last}:{self.port}/{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(Handler)) as server:
        yield server


def answers_in_order(server: Server, urls: list[str], **settings: Any) -> Iterator[tuple[str, Download]]:
    """Every URL with its answer, as they come; the slow bodies end when the consumer sets `is_closing`."""
    given = {"max_body_bytes": LARGEST, "max_buffer_bytes": 2_000_000, "timeout": 60.0, "retries": 0}
    config = DownloadConfig(url_list=Path("unused"), allowed_networks=("127.0.0.0/8",), **(given | settings))
    fetcher = Fetcher(config)
    with fetcher.fetch([ImageRequest(url) for url in urls]) as answers:
        for answer in answers:
            if answer is not None:
                yield urls[answer[0]], answer[1]
                fetcher.release(answer[1])
    assert fetcher.client.budget.held == 0


@pytest.mark.parametrize("thread_count", [64, 16, 2])
@pytest.mark.parametrize("slow", ["chunked/10", "chunked/390000", "declared/10", "declared/390000"])
def test_the_slow_bodies_of_a_host_leave_room_for_all_good_urls_of_others(
    slow: str, thread_count: int, server: Server
) -> None:
    """The slow ones end only after every good one has been answered, and then well."""
    good = [server.url(2, f"good/?{i}") for i in range(60)]
    urls = [server.url(1, f"{slow}?{i}") for i in range(16)] + good
    left = set(good)
    for url, answer in answers_in_order(server, urls, thread_count=thread_count):
        assert answer.outcome == "success"
        assert left == set() or url in left
        left.discard(url)
        if not left:
            server.is_closing.set()


def test_one_host_alone_may_use_every_thread_and_bodies_that_grow_never_wait_for_each_other(
    server: Server,
) -> None:
    """Together they want eight times what may be held."""
    server.is_closing.set()
    urls = [server.url(1, f"chunked/390000?{i}") for i in range(40)]
    settings = {"thread_count": 16, "max_buffer_bytes": LARGEST}
    assert [a.outcome for _, a in answers_in_order(server, urls, **settings)] == ["success"] * 40


def test_bodies_hold_what_has_arrived_and_nothing_once_they_fail() -> None:
    budget = ByteBudget(100, largest=40)

    def read(body_size: int, *, fails: bool) -> None:
        with budget.receive("host") as body:
            body.reserve(body_size + 5)
            body.size += body_size
            assert budget.held == body_size + 5
            if fails:
                raise TimeoutError

    read(20, fails=False)
    assert budget.held == 20
    budget.release(20)
    with pytest.raises(TimeoutError):
        read(20, fails=True)
    assert budget.held == 0
