"""Which URLs make which shard: written once, and extended by a round of shards for each retry."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather

from pipelines.config_errors import ConfigError, nearest
from pipelines.ingest.outcome import DOWNLOADED, MEANINGS, is_outcome
from pipelines.ingest.shard import READERS, stats_file
from vlp.data.folder import Folder

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
    def read(cls, output: Folder) -> "Plan | None":
        """The plan of a folder, None if it has none yet."""
        folder = output / FOLDER
        if FILE not in folder.names():
            return None
        saved = folder.read_json(FILE)
        return cls(saved["identity"], saved["num_urls"], saved["rounds"])

    def write(self, output: Folder) -> None:
        """Commit the plan; the files of its shards are there already."""
        (output / FOLDER).write_json(FILE, asdict(self))

    @property
    def shards(self) -> list[str]:
        """Names of all shards."""
        return [f"{shard:05d}" for shard in range(self.rounds[-1])]

    def missing(self, output: Folder) -> list[str]:
        """Names of the shards that are not committed."""
        there = output.names()
        return [name for name in self.shards if stats_file(name) not in there]

    def retried(self, output: Folder, names: Sequence[str]) -> Counter[str]:
        """How the URLs of some shards ended before they were tried again there."""
        tried_again = [name for name in names if int(name) >= self.rounds[0]]
        return Counter(row["previous"] for name in tried_again for row in read_urls(output, name))


def read_urls(output: Folder, name: str) -> list[dict[str, Any]]:
    """One row per URL of a shard: `url`, `captions`, `digest`, and `previous`, its outcome before a retry."""
    return _read_plan(output, name).to_pylist()


def write_plan(table: pa.Table, output: Folder, *, identity: str, shard_size: int) -> Plan:
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


def add_retry(plan: Plan, output: Folder, *, only: Sequence[str], shard_size: int) -> Plan:
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


def _write_shards(table: pa.Table, output: Folder, *, first: int, shard_size: int) -> int:
    folder = output / FOLDER
    for leftover in folder.names():  # of a plan that was cut and was another one
        stem, _, suffix = leftover.partition(".")
        if suffix == "arrow" and int(stem) >= first:
            folder.delete(leftover)
    num_shards = -(-len(table) // shard_size)

    def write(shard: int) -> None:
        part = table.slice(shard * shard_size, shard_size)
        with folder.writing(f"{first + shard:05d}.arrow") as stream:
            pyarrow.feather.write_feather(part, stream, compression="zstd")

    with ThreadPool(READERS) as pool:
        pool.map(write, range(num_shards))
    return num_shards


def _read_plan(output: Folder, name: str) -> pa.Table:
    with (output / FOLDER).open(f"{name}.arrow") as file:
        return pyarrow.feather.read_table(file)


def _last_outcomes(plan: Plan, output: Folder) -> pa.Table:
    """Every URL that failed at first, in the order of the plan, with its last outcome as `previous`."""
    last: dict[str, str] = {}
    parts = []
    for name in plan.shards:
        index = output.table(f"{name}.parquet", ["url", "status"])
        if int(name) < plan.rounds[0]:
            index = index.filter(~pc.field("status").isin(sorted(DOWNLOADED)))
            urls = _read_plan(output, name).drop_columns(["previous"])
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
