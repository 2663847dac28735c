"""Which URLs make which shard: written once, and extended by a round of shards for each retry."""

import fcntl
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet as pq

from pipelines.config_errors import ConfigError, nearest
from pipelines.ingest.outcome import DOWNLOADED, MEANINGS, is_outcome
from pipelines.ingest.shard import write_json

FOLDER, FILE = "plan", "plan.json"
ANY_OF = {"http_4xx": "http_4", "http_5xx": "http_5"}


@dataclass(frozen=True)
class Plan:
    """The shards of a folder, whether they are made yet or not."""

    identity: str
    """Of the URL list and all settings that decide the result."""
    num_urls: int
    rounds: list[int]
    """Number of shards after the first download, and after each retry."""

    @classmethod
    def read(cls, output: Path) -> "Plan | None":
        """The plan of a folder, None if it has none yet."""
        file = output / FOLDER / FILE
        if not file.is_file():
            return None
        saved = json.loads(file.read_text())
        return cls(saved["identity"], saved["num_urls"], saved["rounds"])

    def write(self, output: Path) -> None:
        """Commit the plan; the files of its shards are there already."""
        write_json(output / FOLDER / FILE, asdict(self))

    @property
    def shards(self) -> list[str]:
        """Names of all shards."""
        return [f"{shard:05d}" for shard in range(self.rounds[-1])]

    def missing(self, output: Path) -> list[str]:
        """Names of the shards that are not committed."""
        return [name for name in self.shards if not (output / f"{name}_stats.json").is_file()]

    def retried(self, output: Path, names: Sequence[str]) -> Counter[str]:
        """How the URLs of some shards ended before they were tried again there."""
        tried_again = [name for name in names if int(name) >= self.rounds[0]]
        return Counter(row["previous"] for name in tried_again for row in read_urls(output, name))


def read_urls(output: Path, name: str) -> list[dict[str, Any]]:
    """One row per URL of a shard: `url`, `captions`, `digest`, and `previous`, its outcome before a retry."""
    return pyarrow.feather.read_table(output / FOLDER / f"{name}.arrow").to_pylist()


def write_plan(table: pa.Table, output: Path, *, identity: str, shard_size: int) -> Plan:
    """Divide URLs into shards."""
    table = table.append_column("previous", pa.nulls(len(table), pa.string()))
    num_shards = _write_shards(table, output, first=0, shard_size=shard_size)
    plan = Plan(identity, len(table), [num_shards])
    plan.write(output)
    return plan


def read_retry(only: str) -> list[str]:
    """`timeout,dns` as a list; empty for every failure.

    Raises:
        ConfigError: one of them is no outcome of a URL that failed.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name in DOWNLOADED or not (is_outcome(name) or name in ANY_OF):
            valid = [*(set(MEANINGS) - DOWNLOADED), *ANY_OF]
            raise ConfigError(f"--only: {name!r} is no outcome to try again{nearest(name, valid)}")
    return names


def add_retry(plan: Plan, output: Path, *, only: Sequence[str], shard_size: int) -> Plan:
    """A plan with a round of shards more: the URLs whose last outcome is one of `only`, or any failure.

    It stays as it is where nothing is to be tried again.
    """
    is_retried = _matches(only)
    failed = _last_outcomes(plan, output)
    failed = failed.filter(
        pa.array([is_retried(status) for status in failed["previous"].to_pylist()], pa.bool_())
    )
    if not len(failed):
        return plan
    num_shards = _write_shards(failed, output, first=plan.rounds[-1], shard_size=shard_size)
    plan = Plan(plan.identity, plan.num_urls, [*plan.rounds, plan.rounds[-1] + num_shards])
    plan.write(output)
    return plan


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep other downloads out of a folder; the lock goes with its process, however that ends.

    Raises:
        ConfigError: another download has the folder, or nothing can be written there.
    """
    try:
        (output / FOLDER).mkdir(parents=True, exist_ok=True)
        file = (output / FOLDER / "lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"{output}: cannot write there ({error.strerror}); choose another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{output}: another download writes there; wait for its end or choose another folder"
            ) from error
        yield


def _write_shards(table: pa.Table, output: Path, *, first: int, shard_size: int) -> int:
    folder = output / FOLDER
    for leftover in folder.glob("*.arrow"):  # of a plan that was cut and was another one
        if int(leftover.stem) >= first:
            leftover.unlink()
    num_shards = -(-len(table) // shard_size)
    for shard in range(num_shards):
        part = table.slice(shard * shard_size, shard_size)
        pyarrow.feather.write_feather(part, folder / f"{first + shard:05d}.arrow", compression="zstd")
    return num_shards


def _last_outcomes(plan: Plan, output: Path) -> pa.Table:
    """Every URL that failed at first, in the order of the plan, with its last outcome as `previous`."""
    last: dict[str, str] = {}
    parts = []
    for name in plan.shards:
        index = pq.read_table(output / f"{name}.parquet", columns=["url", "status"])
        if int(name) < plan.rounds[0]:
            index = index.filter(~pc.field("status").isin(sorted(DOWNLOADED)))
            urls = pyarrow.feather.read_table(output / FOLDER / f"{name}.arrow").drop_columns(["previous"])
            parts.append(urls.filter(pc.field("url").isin(index["url"].to_pylist())))
        last |= dict(zip(index["url"].to_pylist(), index["status"].to_pylist(), strict=True))
    table = pa.concat_tables(parts)
    previous = [last[url] for url in table["url"].to_pylist()]
    return table.append_column("previous", pa.array(previous, pa.string()))


def _matches(only: Sequence[str]) -> Callable[[str], bool]:
    prefixes = tuple(ANY_OF[name] for name in only if name in ANY_OF)

    def is_retried(outcome: str) -> bool:
        if outcome in DOWNLOADED:
            return False
        return not only or outcome in only or outcome.startswith(prefixes)

    return is_retried
