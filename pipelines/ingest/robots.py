"""What hosts ask of robots: the header X-Robots-Tag, and robots.txt."""

from collections.abc import Iterable
from email.message import Message
from importlib.metadata import version
from threading import Lock
from urllib.parse import urlunsplit
from urllib.robotparser import RobotFileParser

from pipelines.ingest.client import Client
from pipelines.ingest.connection import Clock
from pipelines.ingest.failure import Failure
from pipelines.ingest.web_address import DEFAULT_PORTS, Origin, parse_url

MAX_ORIGINS = 50_000  # remembered per process
MAX_BYTES = 500 * 1024  # of a robots.txt that are read, as RFC 9309 asks for at least


def user_agent(token: str | None, contact: str | None) -> str:
    """Who asks, and where to reach them."""
    name = token or f"vlp/{version('vlp')}"
    return f"Mozilla/5.0 (compatible; {name}{f'; +{contact}' if contact else ''})"


def opts_out(headers: Message, token: str | None, directives: Iterable[str]) -> bool:
    """Whether X-Robots-Tag holds one of the directives, for all or for the robot of this name."""
    honoured = {directive.strip().lower() for directive in directives}
    for value in headers.get_all("X-Robots-Tag", []):
        name, has_name, rest = value.partition(":")
        if has_name and name.strip().lower() != (token or "").strip().lower():
            continue
        if honoured & {part.strip().lower() for part in (rest if has_name else value).split(",")}:
            return True
    return False


class RobotsTxt:
    """What each origin's robots.txt allows; asked for once, and remembered."""

    def __init__(self, client: Client, token: str | None) -> None:
        self._client = client
        self._name = token or "vlp"
        self._rules: dict[Origin, RobotFileParser] = {}
        self._lock = Lock()

    def check(self, url: str, clock: Clock) -> None:
        """Raise a Failure if a URL is disallowed, or its robots.txt cannot be had from a failing host."""
        origin, target = parse_url(url)
        with self._lock:
            rules = self._rules.get(origin)
        if rules is None:  # two threads may ask at the same time: both get the same
            rules = self._read(origin, clock)
            with self._lock:
                if len(self._rules) >= MAX_ORIGINS:
                    del self._rules[next(iter(self._rules))]
                self._rules[origin] = rules
        if not rules.can_fetch(self._name, target):
            raise Failure("robots", "disallowed by robots.txt")

    def _read(self, origin: Origin, clock: Clock) -> RobotFileParser:
        """RFC 9309: a host without one (4xx) allows everything; one that fails (5xx, timeout) nothing yet."""
        rules = RobotFileParser()
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        port = "" if origin.port == DEFAULT_PORTS[origin.scheme] else f":{origin.port}"
        try:
            body = self._client.get(urlunsplit((origin.scheme, host + port, "/robots.txt", "", "")), clock)
        except Failure as failure:
            if not (failure.outcome.startswith("http_4") and failure.outcome != "http_429"):
                raise
            rules.parse([])
            return rules
        self._client.budget.release(len(body))
        rules.parse(body[:MAX_BYTES].decode("utf-8", "replace").splitlines())
        return rules
