"""Hosts are asked as often as they put up with, and as they say; no host holds up the others."""

import email.utils
import io
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from img2dataset.downloader import compute_key, is_disallowed
from PIL import Image

from pipelines.ingest.fetch import Fetcher, ImageRequest
from pipelines.ingest.host_queue import HostQueue, Job
from pipelines.ingest.robots import opts_out
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.worker import sample_key
from tests.servers.web import QuietHandler, WebServer, serving

BUFFER = io.BytesIO()
Image.new("RGB", (8, 8)).save(BUFFER, "PNG")
IMAGE = BUFFER.getvalue()


class Handler(QuietHandler):
    """Takes a while for each answer; paths say what else it does."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def get(self) -> None:
        host = self.headers["Host"]
        with self.server.lock:
            self.server.seen[host].append((time.monotonic(), self.path, self.headers["User-Agent"]))
            self.server.active[host] += 1
            self.server.most_active[host] = max(self.server.most_active[host], self.server.active[host])
            attempt = sum(path == self.path for _, path, _ in self.server.seen[host])
        time.sleep(0.02)
        with self.server.lock:
            self.server.active[host] -= 1
        kind, _, wait = unquote(self.path.partition("?")[0]).strip("/").partition("-")
        if kind == "silent":
            self.server.is_closing.wait(20)
        elif kind == "busy" and attempt == 1:
            self.answer(429, {"Retry-After": wait}, b"")
        elif kind == "angry":
            self.answer(503, {"Retry-After": wait}, b"")
        elif kind == "robots.txt":
            status, text = self.server.robots
            self.answer(status, {"X-Robots-Tag": "noindex"}, text)
        else:
            self.answer(200, {}, IMAGE)


class Server(WebServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.lock = threading.Lock()
        self.seen: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
        self.active, self.most_active = Counter[str](), Counter[str]()
        self.robots: tuple[int, bytes] = (404, b"")

    def host(self, last: int) -> str:
        """One of many hosts: all of 127.0.0.0/8 is this machine."""
        return f"127.0.0.{last}:{self.port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


def ask(urls: list[str], *, num_fetchers: int = 1, **settings: Any) -> list[str]:
    """Outcomes, in the order of the URLs."""
    given = {"url_list": Path("unused"), "allowed_networks": ("127.0.0.0/8",), "thread_count": 32} | settings
    fetcher = Fetcher(DownloadConfig(**given), num_fetchers=num_fetchers)
    with fetcher.fetch([ImageRequest(url) for url in urls]) as answers:
        found = dict(answer for answer in answers if answer is not None)
    return [found[i].outcome for i in range(len(urls))]


def test_no_host_gets_more_requests_at_a_time_than_allowed(server: Server) -> None:
    urls = [f"http://{server.host(1 + i % 2)}/{i}" for i in range(60)]
    assert ask(urls, host_concurrency=3) == ["success"] * 60
    assert server.most_active == {server.host(1): 3, server.host(2): 3}
    server.most_active.clear()
    ask(urls, host_concurrency=6, num_fetchers=3)
    assert server.most_active == {server.host(1): 2, server.host(2): 2}


def test_requests_to_a_host_are_spread_over_time(server: Server) -> None:
    started = time.monotonic()
    urls = [f"http://{server.host(1)}/{i}" for i in range(6)]
    assert ask(urls, host_rate=20, num_fetchers=2) == ["success"] * 6
    assert time.monotonic() - started >= 5 * 2 / 20


def test_a_host_that_asks_to_wait_is_left_alone_and_the_others_are_not(server: Server) -> None:
    busy, other = server.host(1), server.host(2)
    urls = [f"http://{busy}/busy-1", *(f"http://{busy}/{i}" for i in range(5))]
    urls += [f"http://{other}/{i}" for i in range(40)]
    assert ask(urls, host_concurrency=1) == ["success"] * len(urls)
    assert len(server.seen[busy]) == 7
    first, second = (when for when, _, _ in server.seen[busy][:2])
    assert second - first >= 1.0
    assert sum(first < when < second for when, _, _ in server.seen[other]) > 5


def test_a_date_may_say_how_long_to_wait(server: Server) -> None:
    later = email.utils.formatdate(time.time() + 3, usegmt=True)  # whole seconds: at least two from now
    assert ask([f"http://{server.host(1)}/busy-{quote(later)}"], host_concurrency=1) == ["success"]
    first, second = (when for when, _, _ in server.seen[server.host(1)])
    assert second - first >= 1.5


def test_a_host_that_asks_to_wait_for_ever_holds_nothing_up(server: Server) -> None:
    urls = [f"http://{server.host(1)}/angry-86400?{i}" for i in range(50)]
    urls += [f"http://{server.host(2)}/{i}" for i in range(10)]
    outcomes = ask(urls, host_concurrency=2, total_timeout=10.0)
    assert outcomes == ["http_503"] * 50 + ["success"] * 10
    assert len(server.seen[server.host(1)]) == 50  # no retry could come in time


def test_a_host_that_never_answers_is_given_up(server: Server) -> None:
    urls = [f"http://{server.host(1)}/silent-?{i}" for i in range(300)]
    urls += [f"http://{server.host(2)}/{i}" for i in range(10)]
    outcomes = ask(urls, host_concurrency=8, timeout=1.0, retries=0, host_timeouts=16)
    assert outcomes == ["timeout"] * 300 + ["success"] * 10
    assert 16 <= len(server.seen[server.host(1)]) <= 16 + 8


def test_a_host_that_answers_now_and_then_is_not_given_up(server: Server) -> None:
    urls = [f"http://{server.host(1)}/{'silent-?' if i % 4 else ''}{i}" for i in range(12)]
    outcomes = ask(urls, host_concurrency=1, timeout=0.5, retries=0, host_timeouts=5)
    assert Counter(outcomes) == {"timeout": 9, "success": 3}
    assert len(server.seen[server.host(1)]) == 12


def test_pauses_between_tries_grow_and_differ(server: Server) -> None:
    urls = [f"http://{server.host(1)}/angry-?{i}" for i in range(8)]
    assert ask(urls, retries=2) == ["http_503"] * 8
    by_url = defaultdict(list)
    for when, path, _ in server.seen[server.host(1)]:
        by_url[path].append(when)
    waits = [(b - a, c - b) for a, b, c in by_url.values()]
    assert all(first >= 0.25 and second >= 0.5 for first, second in waits)
    assert max(first for first, _ in waits) - min(first for first, _ in waits) > 0.05


def test_hosts_learn_who_asks(server: Server) -> None:
    ask([f"http://{server.host(1)}/1"], user_agent_token="mybot/2", user_agent_contact="https://me.org/bot")
    ask([f"http://{server.host(1)}/2"])
    agents = [agent for _, _, agent in server.seen[server.host(1)]]
    assert agents[0] == "Mozilla/5.0 (compatible; mybot/2; +https://me.org/bot)"
    assert agents[1].startswith("Mozilla/5.0 (compatible; vlp/")


def test_robots_txt_is_asked_for_once_and_obeyed_if_configured(server: Server) -> None:
    server.robots = (200, b"User-agent: mybot\nDisallow: /private\n\nUser-agent: *\nDisallow: /\n")
    host = server.host(1)
    urls = [f"http://{host}/private/1", f"http://{host}/public/1"]
    assert ask(urls, robots_txt="ignore") == ["success", "success"]
    assert ask(urls, robots_txt="obey") == ["robots", "robots"]
    server.seen.clear()
    named = ask(
        [*urls, f"http://{host}/public/2"], robots_txt="obey", user_agent_token="mybot", thread_count=1
    )
    assert named == ["robots", "success", "success"]
    assert [path for _, path, _ in server.seen[host]].count("/robots.txt") == 1


@pytest.mark.parametrize(("status", "outcome"), [(404, "success"), (403, "success"), (503, "http_503")])
def test_a_missing_robots_txt_allows_and_a_failing_one_does_not(
    status: int, outcome: str, server: Server
) -> None:
    server.robots = (status, b"")
    assert ask([f"http://{server.host(1)}/1"], robots_txt="obey", retries=0) == [outcome]


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["noai"],
        ["NoAI"],
        ["all, noimageai"],
        ["noarchive"],
        ["otherbot: noai"],
        ["mybot: noindex"],
        ["mybot: all", "noimageindex"],
        ["googlebot: noindex", "otherbot: noindex"],
        [" noai , nofollow"],
        ["unavailable_after: 25 Jun 2010 15:00:00 PST"],
        [""],
        [":"],
        [",,"],
    ],
)
@pytest.mark.parametrize("token", [None, "mybot"])
def test_opt_outs_are_those_of_img2dataset(values: list[str], token: str | None) -> None:
    headers = Message()
    for value in values:
        headers["X-Robots-Tag"] = value
    directives = {"noai", "noimageai", "noindex", "noimageindex"}
    assert opts_out(headers, token, directives) == is_disallowed(headers, token, directives)


@pytest.mark.parametrize(("shard", "index", "size", "exponent"), [(0, 0, 10_000, 4), (12, 345, 1000, 3)])
def test_keys_are_those_of_img2dataset(shard: int, index: int, size: int, exponent: int) -> None:
    assert sample_key(shard, index, shard_size=size) == compute_key(index, shard, exponent, 5)


def test_a_queue_that_is_closed_wakes_who_waits() -> None:
    job = Job(0, "http://a/", "a")
    queue = HostQueue([job], concurrency=1, interval=0, max_pause=1, max_timeouts=1)
    assert queue.take() is job
    taken: list[Any] = []
    waiting = threading.Thread(target=lambda: taken.append(queue.take()))
    waiting.start()
    queue.close()
    waiting.join(timeout=5)
    assert taken == [None]
