"""Whatever a URL does, it ends in exactly one outcome, and only what may pass is asked for again."""

import datetime
import hashlib
import io
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from pipelines.corpus.failures import FailureRates
from pipelines.corpus.serve import ImageServer
from pipelines.ingest.failure import Download
from pipelines.ingest.fetch import Fetcher, ImageRequest
from pipelines.ingest.image import ImageStore
from pipelines.ingest.settings import DownloadConfig
from tests.servers.web import QuietHandler, WebServer, serving
from vlp.shards.outcome import StoredImage, is_outcome, meaning


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
    "/nowhere": (302, {}, b""),
    "/inside": (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b""),
    "/once": (301, {"Location": "/image"}, b"moved"),
    "/with%20spaces.jpg?of=the%20query": (200, {}, IMAGE),
    "/to-spaces": (302, {"Location": "/with spaces.jpg?of=the query"}, b""),
    "/to-a-file": (302, {"Location": "file:///etc/hostname"}, b""),
}


class Handler(QuietHandler):
    server: "CountingServer"

    def get(self) -> None:
        self.server.counts[self.path] += 1
        if self.path == "/hangs":
            self.server.is_closing.wait(20)
            return
        attempt = self.server.counts[self.path]
        path = "/503" if self.path == "/recovers" and attempt == 1 else self.path
        self.answer(*ANSWERS["/image" if path == "/recovers" else path])


class CountingServer(WebServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.counts: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def server() -> Iterator[CountingServer]:
    with serving(CountingServer()) as server:
        yield server


PATIENT, HASTY = 10.0, 0.3  # seconds; the machine may be busy
LOCAL = ("127.0.0.0/8", "::1/128")
SETTINGS: dict[str, Any] = {
    "url_list": Path("unused"),
    "image_size": 32,
    "min_image_size": 24,
    "max_aspect_ratio": 3,
    "disallowed_header_directives": ("noai", "noindex"),
    "allowed_networks": LOCAL,
    "timeout": PATIENT,
}


def ask_all(urls: list[str], **options: Any) -> list[StoredImage]:
    """What is stored of each URL; everything that was held in memory has been released."""
    config = DownloadConfig(**(SETTINGS | options))
    fetcher, store = Fetcher(config), ImageStore(config)
    stored: dict[int, StoredImage] = {}
    with fetcher.fetch([ImageRequest(url) for url in urls]) as answers:
        for answer in answers:
            if answer is not None:
                stored[answer[0]] = store(answer[1])
                fetcher.release(answer[1])
    assert fetcher.client.budget.held == 0
    return [stored[i] for i in range(len(urls))]


def ask(url: str, **options: Any) -> StoredImage:
    return ask_all([url], **options)[0]


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
    "/short": ("truncated", 1),
    "/hangs": ("timeout", 2),
    "/to-a-file": ("redirects", 1),
    "/nowhere": ("bad_response", 1),
    "/inside": ("forbidden_address", 1),
    "/once": ("success", 1),
}


@pytest.mark.parametrize("path", OUTCOMES)
def test_an_answer_has_one_outcome_and_only_what_may_pass_is_asked_again(
    path: str, server: CountingServer
) -> None:
    stored = ask(server.url + path, timeout=HASTY if path == "/hangs" else PATIENT)
    assert (stored.outcome, server.counts[path]) == OUTCOMES[path]
    assert (stored.encoded is None) == (stored.outcome != "success")


@pytest.mark.parametrize("path", ["/with spaces.jpg?of=the query", "/to-spaces", " ", "\t", "\r\n"])
def test_spaces_are_sent_as_browsers_send_them(path: str, server: CountingServer) -> None:
    """Within an address they are encoded, around it they are dropped."""
    url = server.url + path if path.strip() else f"{path}{server.url}/image{path}"
    assert ask(url).outcome == "success"


def test_retries_are_as_many_as_asked_for(server: CountingServer) -> None:
    for retries in (0, 2):
        before = server.counts["/429"]
        ask(f"{server.url}/429", retries=retries)
        assert server.counts["/429"] - before == 1 + retries


def test_an_opt_out_is_passed_over_only_if_no_directive_is_honoured(server: CountingServer) -> None:
    assert ask(f"{server.url}/noai", disallowed_header_directives=()).outcome == "success"
    assert ask(f"{server.url}/other-bot", user_agent_token="OtherBot").outcome == "opt_out"


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("file:///etc/hostname", "invalid_url"),
        ("ftp://127.0.0.1/x.jpg", "invalid_url"),
        ("data:image/png;base64,AAAA", "invalid_url"),
        ("", "invalid_url"),
        ("no url", "invalid_url"),
        ("http://", "invalid_url"),
        ("http:///x.jpg", "invalid_url"),
        ("http://127.0.0.1:1/a\r\nX: y", "invalid_url"),
        ("http://127.0.0.1:port/a.jpg", "invalid_url"),
        ("http://127.0.0.1:99999/a.jpg", "invalid_url"),
        ("http://user:secret@127.0.0.1/a.jpg", "invalid_url"),
        ("http://[::1", "invalid_url"),
        ("http://" + "a" * 64 + ".org/x.jpg", "invalid_url"),
        ("http://a b.org/x.jpg", "invalid_url"),
        ("http://name.invalid/x.jpg", "dns"),
    ],
)
def test_urls_that_reach_no_server_have_outcomes_too(url: str, outcome: str) -> None:
    assert ask(url, retries=0).outcome == outcome


def test_a_closed_port_is_a_failed_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take it
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.jpg"
        assert ask(url).outcome == "connect"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "[fe80::1]",
        "[fd00::1]",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_no_way_of_writing_it_leads_into_a_private_network(host: str, server: CountingServer) -> None:
    before = server.counts.total()
    port = server.url.rpartition(":")[2]
    assert ask(f"http://{host}:{port}/image", allowed_networks=()).outcome == "forbidden_address"
    assert server.counts.total() == before


def test_only_the_networks_that_are_named_are_allowed(server: CountingServer) -> None:
    assert ask(f"{server.url}/image", allowed_networks=("127.0.0.1/32",)).outcome == "success"
    assert ask(f"{server.url}/image", allowed_networks=("10.0.0.0/8",)).outcome == "forbidden_address"


INJECTED = {
    "http_404": ("http_404", 1),
    "http_500": ("http_500", 2),
    "timeout": ("timeout", 2),
    "truncated": ("truncated", 1),
    "html": ("not_an_image", 1),
    "wrong_content_type": ("success", 1),
    "http_429": ("http_429", 2),
    "opt_out": ("opt_out", 1),
    "redirect_loop": ("redirects", 4),
    "redirect_inside": ("forbidden_address", 1),
    "slow_drip": ("timeout", 1),
    "endless": ("too_large", 1),
    "gzip_bomb": ("not_an_image", 1),
    "pixel_bomb": ("too_large", 1),
    "garbage": ("bad_response", 1),
    "reset": ("connect", 1),
}


@pytest.mark.parametrize("kind", FailureRates().shares())
def test_every_failure_that_can_be_rehearsed_ends_in_its_outcome(kind: str, tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(IMAGE)
    with ImageServer(tmp_path, failures=FailureRates(**{kind: 1.0})) as server:
        stored = ask(
            f"{server.url}/0.jpg",
            timeout=HASTY if kind == "timeout" else PATIENT,
            total_timeout=2.0 if kind == "slow_drip" else 60.0,
            max_redirects=3,
        )
        assert (stored.outcome, server.requests) == (INJECTED[kind][0], {kind: INJECTED[kind][1]})


def test_bodies_wait_until_others_are_released(server: CountingServer) -> None:
    """As many images are in memory as the settings allow, however many were asked for."""
    room = 3 * len(IMAGE) + len(IMAGE) // 2
    config = DownloadConfig(**SETTINGS, max_body_bytes=len(IMAGE), max_buffer_bytes=room, thread_count=16)
    fetcher = Fetcher(config)
    held: list[Download] = []
    with fetcher.fetch([ImageRequest(f"{server.url}/image")] * 20) as answers:
        for answer in answers:
            if answer is not None:
                held.append(answer[1])
                assert len(held) <= 3
            else:  # nothing comes while three are held
                assert len(held) == 3
                fetcher.release(held.pop())
                break
        num_more = 0
        for answer in answers:
            if answer is not None:
                num_more += 1
                fetcher.release(answer[1])
    assert num_more == 17


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1 that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(
        now + datetime.timedelta(1)
    )
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "certificate.pem").write_bytes(signed.public_bytes(pem))
    (folder / "both.pem").write_bytes(private + signed.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


def test_a_host_has_to_prove_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = certificate(tmp_path)
    with CountingServer() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = server.url.replace("http:", "https:")
        assert ask(f"{url}/image").outcome == "tls"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert ask(f"{url}/image").outcome == "success"
        assert ask(f"{url.replace('127.0.0.1', 'localhost')}/image").outcome == "tls"
        assert ask(f"{server.url}/image").outcome in ("connect", "bad_response")
        server.shutdown()


Hash = Literal["md5", "sha256", "sha512"]
HASHES: dict[Hash, Any] = {"md5": hashlib.md5, "sha256": hashlib.sha256, "sha512": hashlib.sha512}


@pytest.mark.parametrize("algorithm", HASHES)
def test_another_image_than_the_list_was_made_of_is_not_stored(
    algorithm: Hash, server: CountingServer
) -> None:
    fetcher = Fetcher(DownloadConfig(**SETTINGS, verify_hash=("digest", algorithm)))
    right = HASHES[algorithm](IMAGE).hexdigest()
    digests = [right, right.upper(), right[::-1], "no digest", "", None]
    with fetcher.fetch([ImageRequest(f"{server.url}/image", digest) for digest in digests]) as answers:
        found = dict(answer for answer in answers if answer is not None)
    outcomes = [found[i].outcome for i in range(len(digests))]
    assert outcomes == ["success", "success", "hash_mismatch", "hash_mismatch", "success", "success"]


def test_a_stored_image_is_resized_and_knows_what_it_was() -> None:
    stored = ImageStore(DownloadConfig(**SETTINGS))(Download("success", None, IMAGE))
    assert stored.encoded is not None
    decoded = Image.open(io.BytesIO(stored.encoded))
    assert decoded.size == stored.size == (43, 32)
    assert stored.original_size == (64, 48)
    assert stored.sha256 == hashlib.sha256(IMAGE).hexdigest()


def test_every_outcome_has_a_meaning() -> None:
    names = {name for name, _ in [*OUTCOMES.values(), *INJECTED.values()]}
    assert all(is_outcome(name) and meaning(name) for name in names)
    assert not is_outcome("http_200")
    assert not is_outcome("HTTP Error 404: Not Found")
