"""Host names to the addresses that may be asked: those of the public internet, unless more are allowed."""

import ipaddress
import socket
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

from pipelines.ingest.failure import Failure

MAX_HOSTS = 50_000  # remembered per process
NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Resolver:
    """Looks names up, each once, and never waits longer than it is told.

    What is checked is the address that is connected to, so that no name, however it resolves from one moment
    to the next, leads into a private network.
    """

    def __init__(self, allowed_networks: Iterable[str], *, num_lookups: int) -> None:
        self.allowed = [ipaddress.ip_network(network) for network in allowed_networks]
        self._lookups = ThreadPoolExecutor(num_lookups, thread_name_prefix="dns")
        self._answers: dict[str, Future[Any]] = {}
        self._lock = Lock()

    def __call__(self, host: str, *, timeout: float) -> list[str]:
        """The addresses of a host, in the order to try them; a Failure if there is none to be asked."""
        answer = self._look_up(host)
        try:
            found = answer.result(timeout)
        except TimeoutError as error:
            raise Failure("dns", f"no answer about {host} within {timeout:.3g} s") from error
        except UnicodeError as error:
            raise Failure("invalid_url", f"{host!r} is not a name of a host") from error
        except OSError as error:
            if error.errno == socket.EAI_AGAIN:
                self._answers.pop(host, None)
            raise Failure("dns", f"{host}: {error.strerror}") from error
        addresses = list(dict.fromkeys(entry[4][0] for entry in found))
        public = [address for address in addresses if self.is_allowed(address)]
        if not public:
            raise Failure("forbidden_address", f"{host} is {addresses[0]}, which is not public")
        return public

    def is_allowed(self, address: str) -> bool:
        """Whether an address is public, or in a network that is allowed."""
        ip = _embedded(ipaddress.ip_address(address.partition("%")[0]))
        if any(ip in network for network in self.allowed):
            return True
        return ip.is_global and not ip.is_multicast

    def _look_up(self, host: str) -> Future[Any]:
        with self._lock:
            if host not in self._answers:
                if len(self._answers) >= MAX_HOSTS:
                    del self._answers[next(iter(self._answers))]
                lookup = self._lookups.submit(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
                self._answers[host] = lookup
            return self._answers[host]


def _embedded(ip: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
