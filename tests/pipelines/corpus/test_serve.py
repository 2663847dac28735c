"""Served images come back byte for byte, and chosen paths fail in their chosen way, every time."""

import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.corpus.failures import FailureRates, failure_of
from pipelines.corpus.serve import ImageServer

IMAGES = {"000000.jpg": b"\xff\xd8\xff" + b"j" * 3000, "000001.jpg": b"\x89PNG\r\n\x1a\n" + b"p" * 5000}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    images = tmp_path / "images"
    images.mkdir()
    for name, content in IMAGES.items():
        (images / name).write_bytes(content)
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return images


def fetch(url: str, *, timeout: float = 5) -> tuple[bytes, str]:
    with urllib.request.urlopen(url, timeout=timeout) as response:
        return response.read(), response.headers["Content-Type"]


def test_a_folder_and_a_parquet_file_serve_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    parquet = tmp_path / "images.parquet"
    pq.write_table(
        pa.table({"image": pa.array(list(IMAGES.values()), pa.binary()), "label": [0, 1]}), parquet
    )
    with ImageServer(folder) as from_folder, ImageServer(parquet) as from_parquet:
        for (name, content), kind in zip(IMAGES.items(), ("image/jpeg", "image/png"), strict=True):
            assert fetch(f"{from_folder.url}/{name}") == (content, kind)
            assert fetch(f"{from_parquet.url}/{name}?width=9") == (content, kind)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{from_parquet.url}/000002.jpg")
        assert from_parquet.requests == {"ok": 2, "not_found": 1}


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.jpg",
        "/%2e%2e/secret.jpg",
        "//etc/passwd",
        "/%2Fetc/passwd",
        "/link.jpg",
        "/%00",
        "/",
        "/" + "a" * 5000,
    ],
)
def test_nothing_outside_the_folder_is_served(folder: Path, path: str) -> None:
    with ImageServer(folder) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=5)
        connection.request("GET", path)
        assert connection.getresponse().status == 404
        connection.close()


KNOWN_TO_URLLIB = ["http_404", "http_500", "timeout", "truncated", "html", "wrong_content_type"]


@pytest.mark.parametrize("kind", KNOWN_TO_URLLIB)
def test_every_request_for_a_failing_path_fails_in_the_same_way(kind: str, folder: Path) -> None:
    image = IMAGES["000000.jpg"]
    with ImageServer(folder, failures=FailureRates(**{kind: 1.0}, timeout_seconds=60)) as server:
        seen = [outcome(f"{server.url}/000000.jpg", image) for _ in range(2)]
        assert seen == [kind, kind]
        assert server.requests == {kind: 2}


ON_THE_WIRE = {
    "http_429": rb"HTTP/1.1 429 .*\r\nRetry-After: 1\r\n",
    "opt_out": rb"HTTP/1.1 200 .*\r\nX-Robots-Tag: noai\r\n\r\n\xff\xd8\xffj{3000}$",
    "redirect_loop": rb"HTTP/1.1 302 .*\r\nLocation: /000000.jpg\r\n",
    "redirect_inside": rb"HTTP/1.1 302 .*\r\nLocation: http://10\.",
    "slow_drip": rb"HTTP/1.1 200 .*\r\nContent-Length: 3003\r\n\r\n\xff.{0,30}$",
    "endless": rb"HTTP/1.1 200 .*\r\n\r\n\xff\xd8\xffj{3000}\0{500000}",
    "gzip_bomb": rb"HTTP/1.1 200 .*\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
    "pixel_bomb": rb"HTTP/1.1 200 .*\r\n\r\n\x89PNG\r\n\x1a\n....IHDR\0\0\xc3\x50\0\0\xc3\x50",
    "garbage": rb"(?!HTTP)",
    "reset": rb"$",
}


@pytest.mark.parametrize("kind", sorted(set(FailureRates().shares()) - set(KNOWN_TO_URLLIB)))
def test_hostile_answers_are_what_they_are_called(kind: str, folder: Path) -> None:
    with ImageServer(folder, failures=FailureRates(**{kind: 1.0})) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        answer = b""
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"GET /000000.jpg HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(TimeoutError, ConnectionResetError):
                answer = raw.recv(2**16)
                raw.settimeout(1)
                end = time.monotonic() + 1
                while len(answer) < 2**20 and time.monotonic() < end and (part := raw.recv(2**16)):
                    answer += part
        assert re.match(ON_THE_WIRE[kind], answer, re.DOTALL)


def outcome(url: str, image: bytes) -> str:
    """What a client makes of an answer, without knowing what was injected."""
    try:
        body, content_type = fetch(url, timeout=1)
    except urllib.error.HTTPError as error:
        return f"http_{error.code}"
    except TimeoutError:
        return "timeout"
    except http.client.IncompleteRead as error:
        return "truncated" if error.partial == image[: len(image) // 2] else "unknown"
    if body != image:
        return "html" if content_type == "text/html" else "unknown"
    return "ok" if content_type == "image/jpeg" else "wrong_content_type"


def test_closing_neither_waits_for_stalled_requests_nor_keeps_the_port(folder: Path) -> None:
    server = ImageServer(folder, failures=FailureRates(timeout=1.0, timeout_seconds=60))
    with server:
        assert outcome(f"{server.url}/000000.jpg", b"") == "timeout"
        idle = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=5)
        idle.connect()
        started = time.monotonic()
    assert time.monotonic() - started < 20  # of the 60 that the request would take
    with suppress(ConnectionResetError):
        assert idle.sock.recv(1) == b""
    idle.close()
    port = int(server.url.rpartition(":")[2])
    with ImageServer(folder, port=port) as successor:
        assert fetch(f"{successor.url}/000000.jpg")[0] == IMAGES["000000.jpg"]


def test_a_kept_alive_connection_serves_many_images(folder: Path) -> None:
    with ImageServer(folder) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=5)
        for name in [*IMAGES, "missing.jpg", *IMAGES]:
            connection.request("GET", f"/{name}")
            assert connection.getresponse().read() == IMAGES.get(name, b"")
        connection.close()


def test_shares_of_failures_are_those_asked_for() -> None:
    rates = FailureRates(http_404=0.1, timeout=0.05, truncated=0.2, wrong_content_type=0.02)
    num_paths = 20_000
    counts = Counter(failure_of(f"/{index:06d}.jpg", rates) for index in range(num_paths))
    for kind, share in rates.shares().items():
        assert counts[kind] / num_paths == pytest.approx(share, abs=0.01)
    assert failure_of("/000000.jpg", FailureRates()) is None


@pytest.mark.parametrize(
    "rates", [{"html": 1.5}, {"http_404": -0.1}, {"html": 0.6, "http_500": 0.6}, {"timeout_seconds": 0}]
)
def test_impossible_rates_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        FailureRates(**rates)


def test_wrong_sources_and_busy_ports_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageServer(tmp_path / "nowhere")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "labels.parquet")
    with pytest.raises(ValueError, match="no column named image"):
        ImageServer(tmp_path / "labels.parquet")
    with ImageServer(folder) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} .*serve\.port="):
            ImageServer(folder, port=port)
