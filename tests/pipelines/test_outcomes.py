"""Whatever a URL does, it ends in exactly one outcome, and only what may pass is asked for again."""

import hashlib
import io
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.ingest.fetch import Fetcher, store
from pipelines.ingest.outcome import Download, StoredImage, classify
from pipelines.serve import FailureRates, ImageServer

MESSAGES = {
    "HTTP Error 404: Not Found": "http_404",
    "HTTP Error 429: Too Many Requests": "http_429",
    "HTTP Error 503: timed out upstream": "http_503",
    "<urlopen error timed out>": "timeout",
    "The read operation timed out": "timeout",
    "<urlopen error [Errno -2] Name or service not known>": "dns",
    "<urlopen error [Errno -3] Temporary failure in name resolution>": "dns",
    "<urlopen error [Errno 111] Connection refused>": "connect",
    "Remote end closed connection without response": "connect",
    "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired (_ssl.c:1006)>": "tls",
    "IncompleteRead(512 bytes read, 512 more expected)": "truncated",
    "Use of image disallowed by X-Robots-Tag directive": "opt_out",
    "URL can't contain control characters. '/a b.jpg' (found at least ' ')": "invalid_url",
    "nonnumeric port: 'port'": "invalid_url",
    "'ascii' codec can't encode character '\\xfc' in position 5: ordinal not in range(128)": "invalid_url",
    "encoding with 'idna' codec failed (UnicodeError: label empty or too long)": "invalid_url",
    "image too small": "too_small",
    "image area too large": "too_large",
    "aspect ratio too large": "aspect",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_of_the_libraries_has_its_outcome(message: str) -> None:
    assert classify(message, default="connect") == MESSAGES[message]


def picture(width: int, height: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, kind)
    return buffer.getvalue()


IMAGE = picture(64, 48)
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/image": (200, {}, IMAGE),
    "/small": (200, {}, picture(20, 15)),
    "/wide": (200, {}, picture(200, 40)),
    "/html": (200, {"Content-Type": "text/html"}, b"<!doctype html><p>gone"),
    "/empty": (200, {}, b""),
    "/damaged": (200, {}, picture(64, 48, "PNG")[:60]),
    "/short": (200, {"Content-Length": str(2 * len(IMAGE))}, IMAGE),
    "/noai": (200, {"X-Robots-Tag": "noai"}, IMAGE),
    "/index": (200, {"X-Robots-Tag": "all, noarchive"}, IMAGE),
    "/other-bot": (200, {"X-Robots-Tag": "otherbot: noai"}, IMAGE),
    "/404": (404, {}, b""),
    "/410": (410, {}, b""),
    "/429": (429, {}, b""),
    "/503": (503, {}, b""),
    "/to-a-file": (302, {"Location": "file:///etc/hostname"}, b""),
}


class Handler(BaseHTTPRequestHandler):
    server: "CountingServer"

    def do_GET(self) -> None:
        self.server.counts[self.path] += 1
        if self.path == "/hangs":
            self.server.is_closing.wait(20)
            return
        attempt = self.server.counts[self.path]
        path = "/503" if self.path == "/recovers" and attempt == 1 else self.path
        status, headers, body = ANSWERS["/image" if path == "/recovers" else path]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


class CountingServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.counts: Counter[str] = Counter()
        self.is_closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that refuses the body has hung up."""


@pytest.fixture(scope="module")
def server() -> Iterator[CountingServer]:
    with CountingServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.is_closing.set()
        server.shutdown()


@pytest.fixture(scope="module")
def resizer() -> Any:
    from img2dataset.resizer import Resizer

    return Resizer(32, "keep_ratio", True, min_image_size=24, max_aspect_ratio=3)


PATIENT, HASTY = 10.0, 0.3  # seconds; the machine may be busy


def ask(url: str, resizer: Any, *, retries: int = 1, **options: Any) -> StoredImage:
    honoured = frozenset({"noai", "noindex"})
    settings = {"timeout": PATIENT, "user_agent_token": None, "disallowed_header_directives": honoured}
    return store(Fetcher(retries=retries, **(settings | options))(url), resizer)


OUTCOMES = {
    "/image": ("success", 1),
    "/index": ("success", 1),
    "/other-bot": ("success", 1),
    "/recovers": ("success", 2),
    "/small": ("too_small", 1),
    "/wide": ("aspect", 1),
    "/html": ("not_an_image", 1),
    "/empty": ("not_an_image", 1),
    "/damaged": ("decode", 1),
    "/noai": ("opt_out", 1),
    "/404": ("http_404", 1),
    "/410": ("http_410", 1),
    "/429": ("http_429", 2),
    "/503": ("http_503", 2),
    "/short": ("truncated", 2),
    "/hangs": ("timeout", 2),
    "/to-a-file": ("http_302", 1),
}


@pytest.mark.parametrize("path", OUTCOMES)
def test_an_answer_has_one_outcome_and_only_what_may_pass_is_asked_again(
    path: str, server: CountingServer, resizer: Any
) -> None:
    stored = ask(server.url + path, resizer, timeout=HASTY if path == "/hangs" else PATIENT)
    assert (stored.outcome, server.counts[path]) == OUTCOMES[path]
    assert (stored.encoded is None) == (stored.outcome != "success")


def test_retries_are_as_many_as_asked_for(server: CountingServer, resizer: Any) -> None:
    for retries in (0, 2):
        before = server.counts["/429"]
        ask(f"{server.url}/429", resizer, retries=retries)
        assert server.counts["/429"] - before == 1 + retries


def test_an_opt_out_is_passed_over_only_if_no_directive_is_honoured(
    server: CountingServer, resizer: Any
) -> None:
    stored = ask(f"{server.url}/noai", resizer, disallowed_header_directives=frozenset())
    assert stored.outcome == "success"
    named = ask(f"{server.url}/other-bot", resizer, user_agent_token="otherbot")
    assert named.outcome == "opt_out"


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("file:///etc/hostname", "invalid_url"),
        ("ftp://127.0.0.1/x.jpg", "invalid_url"),
        ("", "invalid_url"),
        ("no url", "invalid_url"),
        ("http://127.0.0.1:1/a b.jpg", "invalid_url"),
        ("http://127.0.0.1:port/a.jpg", "invalid_url"),
        ("http://[::1", "invalid_url"),
        ("http://name.invalid/x.jpg", "dns"),
    ],
)
def test_urls_that_reach_no_server_have_outcomes_too(url: str, outcome: str, resizer: Any) -> None:
    assert ask(url, resizer, retries=0).outcome == outcome


def test_a_closed_port_is_a_failed_connection(resizer: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take it
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.jpg"
        assert ask(url, resizer).outcome == "connect"


INJECTED = {
    "http_404": "http_404",
    "http_500": "http_500",
    "timeout": "timeout",
    "truncated": "truncated",
    "html": "not_an_image",
    "wrong_content_type": "success",
}


@pytest.mark.parametrize("kind", FailureRates().shares())
def test_every_failure_that_can_be_rehearsed_ends_in_its_outcome(
    kind: str, tmp_path: Path, resizer: Any
) -> None:
    (tmp_path / "0.jpg").write_bytes(IMAGE)
    is_retried = kind in ("http_500", "timeout", "truncated")
    with ImageServer(tmp_path, failures=FailureRates(**{kind: 1.0})) as server:
        timeout = HASTY if kind == "timeout" else PATIENT
        assert ask(f"{server.url}/0.jpg", resizer, timeout=timeout).outcome == INJECTED[kind]
        assert server.requests == {kind: 1 + is_retried}


def test_a_stored_image_is_resized_and_knows_what_it_was(resizer: Any) -> None:
    stored = store(Download("success", None, IMAGE), resizer)
    assert stored.encoded is not None
    decoded = Image.open(io.BytesIO(stored.encoded))
    assert decoded.size == stored.size == (43, 32)
    assert stored.original_size == (64, 48)
    assert stored.sha256 == hashlib.sha256(IMAGE).hexdigest()
