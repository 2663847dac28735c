"""One URL to the body behind it: redirects, limits and opt-outs, and every way in which that fails."""

import email.utils
import http.client
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from urllib.parse import urljoin

from pipelines.ingest.addresses import Resolver
from pipelines.ingest.byte_budget import ByteBudget, Incoming
from pipelines.ingest.connection import Clock, Connection, ConnectionPool
from pipelines.ingest.failure import NO_ANSWER, Failure
from pipelines.ingest.web_address import DEFAULT_PORTS, Origin, parse_url

REDIRECTS = {301, 302, 303, 307, 308}
CHUNK = 2**16


Inspect = Callable[[Message], None]


@dataclass(frozen=True, kw_only=True)
class Client:
    """How URLs are asked for, in any number of threads.

    The budget holds the bytes of every body that is returned, until the caller releases them.
    """

    resolve: Resolver
    pool: ConnectionPool
    tls: ssl.SSLContext
    budget: ByteBudget
    max_body_bytes: int
    max_redirects: int
    user_agent: str

    def get(self, url: str, clock: Clock, inspect: Inspect = lambda headers: None) -> bytes:
        """The body at the end of all redirects, at most `max_body_bytes` long; a Failure if there is none.

        `inspect` sees the headers before the body is read, and may refuse it with a Failure of its own.
        """
        for _ in range(self.max_redirects + 1):
            origin, target = parse_url(url)
            answer = self._ask(origin, target, clock, inspect)
            if isinstance(answer, Failure):
                raise answer
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
            if not url.lower().startswith(("http://", "https://")):
                raise Failure("redirects", f"redirected to {url[:200]}")
        raise Failure("redirects", f"redirected more than {self.max_redirects} times")

    def _ask(self, origin: Origin, target: str, clock: Clock, inspect: Inspect) -> bytes | str | Failure:
        """The body, the address that the request is redirected to, or why the host refuses it."""
        try:
            connection, response = self._respond(origin, self._request(origin, target), clock)
            is_kept = False
            try:
                answer = self._read(response, origin.host, clock, inspect)
                is_kept = response.isclosed() and not response.will_close
                return answer
            finally:
                if is_kept:
                    self.pool.give_back(origin, connection)
                else:
                    connection.close()
        except ssl.SSLError as error:
            raise Failure("tls", str(error)) from error
        except TimeoutError as error:
            raise Failure("timeout", NO_ANSWER) from error
        except http.client.IncompleteRead as error:
            raise Failure("truncated", str(error)) from error
        except OSError as error:
            raise Failure("connect", str(error)) from error
        except (http.client.HTTPException, ValueError) as error:  # a ValueError is a bad length of a chunk
            raise Failure("bad_response", f"{type(error).__name__}: {error}"[:200]) from error

    def _respond(
        self, origin: Origin, request: bytes, clock: Clock
    ) -> tuple[Connection, http.client.HTTPResponse]:
        connection = self.pool.take(origin)
        if connection is not None:
            try:
                return connection, connection.ask(request, clock)
            except ConnectionError:
                connection.close()  # the host had hung up meanwhile
            except BaseException:
                connection.close()
                raise
        addresses = self.resolve(origin.host, timeout=clock.patience())
        connection = Connection.open(origin, addresses, clock, self.tls)
        try:
            return connection, connection.ask(request, clock)
        except BaseException:
            connection.close()
            raise

    def _read(
        self, response: http.client.HTTPResponse, host: str, clock: Clock, inspect: Inspect
    ) -> bytes | str | Failure:
        status, location = response.status, response.headers.get("Location")
        if 200 <= status < 300:
            inspect(response.headers)
            return self._read_body(response, host, clock)
        if response.length is not None and response.length <= CHUNK:
            response.read()  # next to nothing, and the connection can be kept
        if status in REDIRECTS and location:
            return location.encode("latin-1", "replace").decode("utf-8", "replace")  # as headers are sent
        return _refusal(response)

    def _read_body(self, response: http.client.HTTPResponse, host: str, clock: Clock) -> bytes:
        declared = response.length
        if declared is not None and declared > self.max_body_bytes:
            raise Failure("too_large", f"{declared:,} bytes")
        with self.budget.receive(host) as body:
            parts = []
            while part := self._read_part(response, body, clock):
                parts.append(part)
            if response.length:
                raise Failure("truncated", f"{response.length:,} bytes are missing")
            return b"".join(parts)

    def _read_part(self, response: http.client.HTTPResponse, body: Incoming, clock: Clock) -> bytes:
        """Some more bytes, b"" at the end."""
        left = self.max_body_bytes - body.size if response.length is None else response.length
        started = time.monotonic()
        body.reserve(min(left, CHUNK))
        clock.end += time.monotonic() - started  # this process was slow, not the host
        part = response.read(max(1, min(left, CHUNK)))  # one byte more shows that there are too many
        body.size += len(part)
        if body.size > self.max_body_bytes:
            raise Failure("too_large", f"more than {self.max_body_bytes:,} bytes")
        return part

    def _request(self, origin: Origin, target: str) -> bytes:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        if origin.port != DEFAULT_PORTS[origin.scheme]:
            host += f":{origin.port}"
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: {host}",
            f"User-Agent: {self.user_agent}",
            "Accept: image/*,*/*;q=0.5",
            "Accept-Encoding: identity",
        )
        return "\r\n".join((*lines, "", "")).encode("ascii")


def _refusal(response: http.client.HTTPResponse) -> Failure:
    status = response.status
    if not 400 <= status < 600:
        return Failure("bad_response", f"status {status}")
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "unknown status"
    pause = _seconds(response.headers.get("Retry-After", ""))
    return Failure(f"http_{status}", f"HTTP {status}: {reason}", retry_after=pause)


def _seconds(retry_after: str) -> float:
    """Retry-After, which is a number of seconds or a date; 0 if it is neither."""
    if retry_after.strip().isdecimal():
        return min(float(retry_after), 1e9)
    try:
        seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
