"""Computers on a network of their own: addresses, disks and processes that no other of them sees.

Linux's namespaces make them of one machine. What is installed is common to all; `/tmp`, `/mnt` and `/dev/shm`
are disks of each, and a power cut ends all processes of one at once and leaves nothing of its disks.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.servers.processes import kill_tree
from tests.waiting import wait_until

DISK = Path("/mnt")
"""What a computer works on."""
VOLUME = DISK / "volume"
"""Where a computer has its volume, which outlives it."""
INIT = """
mount -t tmpfs -o mode=1777 none /mnt || exit 1
if [ "$3" ]; then mkdir /mnt/volume && mount --bind "$3" /mnt/volume || exit 1; fi
for disk in /tmp /dev/shm; do mount -t tmpfs -o mode=1777 none $disk || exit 1; done
for number in $(seq 254); do echo $2.$number computer-$number; done > /tmp/hosts
echo "127.0.0.1 localhost\n$1 $0" >> /tmp/hosts && mount --bind /tmp/hosts /etc/hosts
hostname $0 && ip link set lo up && touch /tmp/is_up
while :; do sleep 3600 & wait; done
"""
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
NAMESPACES = ("--fork", "--kill-child", "--pid", "--mount-proc", "--mount", "--net", "--uts")


class Computer:
    """One of a network, until its power is cut.

    Args:
        name: of the host.
        address: of the host, in the network of a bridge.
        bridge: that its cable leads to.
        volume: folder out here that it has as `VOLUME`.
    """

    def __init__(self, name: str, address: str, bridge: str, volume: Path | None = None) -> None:
        self.name, self.address = name, address
        self._cable = f"{bridge}-{address.rpartition('.')[2]}"
        prefix = address.rpartition(".")[0]
        command = [
            *ENDS_WITH_US,
            "unshare",
            *NAMESPACES,
            "sh",
            "-c",
            INIT,
            name,
            address,
            prefix,
            str(volume or ""),
        ]
        self._outside = psutil.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(self._is_up)
        _ip(f"link add {self._cable} type veth peer name eth0 netns {self._init}")
        _ip(f"link set {self._cable} master {bridge} up")
        for words in (
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {prefix}.1",
        ):
            subprocess.run([*self._within(), "ip", *words.split()], check=True)

    def path(self, path: Path) -> Path:
        """Where this process finds a file of the computer."""
        return Path(f"/proc/{self._init}/root") / path.relative_to("/")

    def run(
        self, command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str]
    ) -> psutil.Popen:
        """A process on it, whose output goes to a file out here."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with log.open("a") as file:
            return psutil.Popen(
                [*self._within(), *command],
                stdout=file,
                stderr=file,
                env=os.environ | {"PATH": path} | dict(environment),
            )

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of it whose command contains a name."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                is_own = _namespace(process.pid) == _namespace(self._init)
                if is_own and name in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def cut_power(self) -> None:
        """End all its processes at once, and lose its disks."""
        kill_tree(self._outside)

    @property
    def _init(self) -> int:
        """The process that all others of it end with."""
        (init,) = self._outside.children()
        return init.pid

    def _is_up(self) -> bool:
        assert self._outside.poll() is None
        return bool(self._outside.children()) and self.path(Path("/tmp/is_up")).exists()

    def _within(self) -> list[str]:
        return f"nsenter --target {self._init} --pid --mount --net --uts --wd={DISK}".split()


class Network:
    """Context manager of a switch that computers are at, and this machine as `address`; where nobody may make
    one, the test is skipped."""

    def __init__(self) -> None:
        self._bridge = f"vlp{os.getpid() % 10_000}"
        self._prefix = f"10.{77 + os.getpid() // 250 % 100}.{os.getpid() % 250}"
        self.address = f"{self._prefix}.1"
        self._numbers = itertools.count(2)
        self.computers: list[Computer] = []

    def computer(self, name: str, address: str = "", *, volume: Path | None = None) -> Computer:
        """A new one, with empty disks, by an address of its own or that of one which is gone."""
        address = address or f"{self._prefix}.{next(self._numbers)}"
        self.computers.append(Computer(name, address, self._bridge, volume))
        return self.computers[-1]

    def __enter__(self) -> "Network":
        try:
            _ip(f"link add {self._bridge} type bridge")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs to be allowed to make networks")
        _ip(f"addr add {self.address}/24 dev {self._bridge}")
        _ip(f"link set {self._bridge} up")
        return self

    def __exit__(self, *_: object) -> None:
        for computer in self.computers:
            computer.cut_power()
        _ip(f"link delete {self._bridge}")


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")
