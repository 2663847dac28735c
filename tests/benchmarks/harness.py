"""What every benchmark shares: interleaved runs of ours and the peer's, their medians, and the table of both.

A benchmark is a script of this folder that ends with `report(NAME, [compare(...), ...], folder)`. `make
bench` runs all of them, one after another, and keeps what they report in results/; options make each so small
that test_benchmarks.py runs it in seconds.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
REAL_DATA = (REPOSITORY / ".." / "shared" / "data").resolve()
RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "pyarrow",
    "numpy",
    "timm",
    "open-clip-torch",
    "transformers",
    "img2dataset",
    "webdataset",
    "ray",
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table. What is measured may be a rate, or a size such as memory; one number per run."""

    what: str
    unit: str
    """Such as `captions/s` (more is better) or `MiB` (less is better)."""
    ours: Sequence[float]
    peer: Sequence[float] = ()
    peer_name: str = ""
    """What we are compared with; without one, our own figure stands alone."""
    note: str = ""

    def summary(self) -> dict[str, Any]:
        """Medians, and ours relative to the peer's, with the lowest and highest of each pair of runs."""
        known: dict[str, Any] = {"what": self.what, "unit": self.unit, "ours": median(self.ours)}
        if self.peer:
            known |= {"peer": median(self.peer), "peer_name": self.peer_name}
        if self.peer and all(self.peer):  # memory of a small test may be too little to be seen
            pairs = sorted(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))
            known |= {"ratio": known["ours"] / known["peer"], "ratio_range": [pairs[0], pairs[-1]]}
        return known | {"runs": len(self.ours), "note": self.note}


def compare(
    what: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    amount: float,
    unit: str,
    peer_name: str,
    runs: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Rates of two functions that do the same work, run in turns: a slow moment of the machine hits both.

    The first turn is not counted: it fills caches, of the peer's too.

    Args:
        amount: how much one call does, such as the number of captions; in the unit's numerator.
        clock: `time.process_time` measures what the processor spends on this process alone, in all threads;
            for work of one process, as other programs then change little.
    """
    turns = [(seconds(ours, clock), seconds(peer, clock)) for _ in range(runs + 1)][1:]
    return Result(
        what=what,
        unit=unit,
        ours=[amount / first for first, _ in turns],
        peer=[amount / second for _, second in turns],
        peer_name=peer_name,
    )


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call."""
    start = clock()
    work()
    return clock() - start


class Usage(NamedTuple):
    """What one call took in a process of its own, imports included."""

    seconds: float
    cpu_seconds: float
    """Of all threads."""
    peak_mib: float
    """Memory of the process at its largest."""


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Usage:
    """Call a function of a module's top level, which imports what it needs itself, in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (work, arguments))


def command_line(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark can be told: where its tables go."""
    first_line = (description or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=first_line, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="of the tables")
    return parser


def report(name: str, results: Sequence[Result], folder: Path) -> None:
    """Print a table, and write `name`.json and .md to a folder, with the machine's description."""
    content = {"name": name, "machine": machine(), "results": [result.summary() for result in results]}
    rows = [_row(result) for result in content["results"]]
    header = ("", "unit", "ours", "peer", "ratio", "compared with")
    table = Table(*header, title=f"{name} on {content['machine']['cpu']}")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [header, ("---",) * len(header), *rows]
    described = ", ".join(f"{key} {value}" for key, value in content["machine"].items())
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / f"{name}.md").write_text(f"{text}\n\nMedians; {described}.\n")


def skip(name: str, reason: str) -> None:
    """Say why a benchmark has nothing to report here."""
    print(f"{name}: skipped, {reason}")


def flickr8k_captions() -> list[str] | None:
    """35,000 human captions of photographs; None where they are not here."""
    import pyarrow.parquet as pq

    files = [REAL_DATA / "flickr8k" / f"{split}.parquet" for split in ("train", "dev")]
    if not all(file.is_file() for file in files):
        return None
    tables = [pq.read_table(file, columns=["captions"])["captions"] for file in files]
    return [caption for table in tables for captions in table.to_pylist() for caption in captions]


def machine() -> dict[str, str]:
    """What the figures depend on; nothing that names the machine itself."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "gpu": _gpu(),
        "python": platform.python_version(),
        **_versions(),
    }


def _versions() -> dict[str, str]:
    """Of the packages that are installed: no benchmark needs all of them."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _measure(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Usage:
    start, cpu_start = time.perf_counter(), time.process_time()
    work(*arguments)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Usage(time.perf_counter() - start, time.process_time() - cpu_start, peak_kib / 1024)


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    ratio = f"{result['ratio']:.3g}x" if "ratio" in result else "-"
    what = f"{result['what']} ({result['note']})" if result["note"] else result["what"]
    peer = _number(result["peer"]) if "peer" in result else "-"
    return what, result["unit"], _number(result["ours"]), peer, ratio, result.get("peer_name", "-")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
