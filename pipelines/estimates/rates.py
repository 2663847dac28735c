"""How fast the parts of a pipeline are: measured on machines of one kind, or as the manual says."""

import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines.config.errors import ConfigError, blaming
from pipelines.config.machine import MachineConfig
from vlp.shards.storage.local import LocalFolder

FOLDER = "rates"
STORED = "bytes of a generated image in shards"
DOCUMENTED = "manual's rate of an AMD EPYC"
NOT_MEASURED_ON_GPUS = "40 % of the peak of an A100 in bfloat16, which is assumed and not measured"


@dataclass(frozen=True)
class Rate:
    """How fast one part of the work is."""

    per_second: float
    """By one worker."""
    start_seconds: float = 0.0
    """What it takes once, whatever there is to do."""
    rests_on: str = DOCUMENTED
    """Where the numbers come from."""

    def seconds(self, amount: float, *, workers: int = 1) -> float:
        """Time of an amount of work, shared by workers."""
        return self.start_seconds + amount / (self.per_second * max(1, workers))


@dataclass(frozen=True)
class Amount:
    """How much there is of something in the mean, such as the bytes of an image."""

    value: float
    rests_on: str
    """Where the number comes from."""


RAY_SECONDS, RUN_SECONDS = 7.0, 10.0
"""Of a start of Ray, and of the first step of a run after it: the manual, "Benchmarks"."""
MANUAL_RATES: Mapping[str, Rate] = {
    "start": Rate(1, RAY_SECONDS),
    "corpus": Rate(500),
    "download": Rate(500),
    "docfreq": Rate(167_000),
    "loader": Rate(1_200),
    "report": Rate(1, RUN_SECONDS),
}
"""Images, captions or pairs per second and core."""
CPU_FLOPS = 1.9e11
"""Per second and core: CLIP's 3.07 images/s with ViT-B/16 on two cores."""
GPU_FLOPS = 1.25e14


@dataclass(frozen=True)
class Rates:
    """What is known of the speed of one kind of machine."""

    hardware: str
    """Name of its processor."""
    measured: Mapping[str, Rate] = field(default_factory=dict)
    """Part of the work -> its rate."""
    amounts: Mapping[str, Amount] = field(default_factory=dict)
    """What was counted beside them."""

    @classmethod
    def read(cls, machine: MachineConfig) -> "Rates":
        """Those that were measured on machines as this one, and are in the machine's storage.

        Raises:
            ConfigError: the file is none of ours.
        """
        hardware = hardware_name(machine)
        file = _file(machine, hardware)
        if not file.is_file():
            return cls(hardware)
        try:
            with blaming():
                rows = LocalFolder(file.parent).read_json(file.name)
            measured = {name: Rate(**row) for name, row in rows["rates"].items()}
            return cls(hardware, measured, {name: Amount(**row) for name, row in rows["amounts"].items()})
        except (TypeError, AttributeError, KeyError) as error:
            raise ConfigError(f"{file} holds no rates; delete it, and measure again") from error

    def with_measured(self, rates: Mapping[str, Rate], amounts: Mapping[str, Amount] = {}) -> "Rates":
        """The same, with further rates and amounts, or newer ones."""
        return Rates(self.hardware, {**self.measured, **rates}, {**self.amounts, **amounts})

    def write(self, machine: MachineConfig) -> Path:
        """Keep them for later plans; returns the file."""
        file = _file(machine, self.hardware)
        file.parent.mkdir(parents=True, exist_ok=True)
        kinds = {"rates": self.measured, "amounts": self.amounts}
        rows = {kind: {name: asdict(one) for name, one in found.items()} for kind, found in kinds.items()}
        LocalFolder(file.parent).write_json(file.name, rows)
        return file

    def of(self, part: str) -> Rate:
        """The measured rate of a part of the work, or the manual's."""
        return self.measured.get(part) or MANUAL_RATES[part]

    def flops(self, machine: MachineConfig) -> Rate:
        """Floating-point operations per second of one training worker."""
        if rate := self.measured.get("flops"):
            return rate
        if machine.use_gpu:
            return Rate(GPU_FLOPS, RUN_SECONDS, NOT_MEASURED_ON_GPUS)
        return Rate(CPU_FLOPS * min(machine.cpus_per_worker, os.cpu_count() or 1), RUN_SECONDS)


def measured_here(hardware: str) -> str:
    """Says where and when a rate was measured."""
    return f"measured on {hardware}, {time.strftime('%Y-%m-%d %H:%M')}"


def hardware_name(machine: MachineConfig) -> str:
    """The GPU where the machine's settings use one, else the CPU with the number of its cores."""
    if machine.use_gpu:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    try:
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _file(machine: MachineConfig, hardware: str) -> Path:
    name = re.sub(r"\W+", "-", hardware).strip("-").lower()
    return (machine.work_folder / FOLDER / f"{name}.json").absolute()
