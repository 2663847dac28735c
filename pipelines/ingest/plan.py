"""Which URLs make which shard: written once, and extended by a round of shards for each retry."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

import pyarrow as pa
import pyarrow.feather

from pipelines.config.errors import UserError, nearest
from vlp.shards.contents import READERS, stats_file
from vlp.shards.index_schema import NO_COLUMNS
from vlp.shards.outcome import DOWNLOADED, MEANINGS, is_outcome
from vlp.shards.storage.folder import Folder

FOLDER, FILE = "plan", "plan.json"
ANY_OF = {"http_4xx": "http_4", "http_5xx": "http_5"}


@dataclass(frozen=True)
class ShardPlan:
    """The shards of a folder, whether they are made yet or not."""

    identity: str
    """Of the URL list and all settings that decide the result."""
    num_urls: int
    rounds: list[int]
    """Number of shards after the first download, and after each retry."""

    @classmethod
    def read(cls, output: Folder) -> "ShardPlan | None":
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
    """One row per URL of a shard: `url`, `captions`, `digest`, and `previous`, its outcome before a retry.

    What else is kept of it is in `more`, if anything is.
    """
    return _read_plan(output, name).to_pylist()


def read_more(output: Folder, name: str) -> pa.Schema:
    """Names and types of what is kept of each URL beside that, in `more`."""
    columns = _read_plan(output, name).schema
    return pa.schema(list(columns.field("more").type)) if "more" in columns.names else NO_COLUMNS


def write_plan(tables: Iterable[pa.Table], output: Folder, *, identity: str, shard_size: int) -> ShardPlan:
    """Divide URLs into shards; they come as `url`, `captions` and `digest`, part by part."""
    rows = (table.append_column("previous", pa.nulls(len(table), pa.string())) for table in tables)
    sizes = _write_shards(rows, output, first=0, shard_size=shard_size)
    plan = ShardPlan(identity, sum(sizes), [len(sizes)])
    plan.write(output)
    return plan


def read_retry(only: str) -> list[str]:
    """`timeout,dns` as a list; empty for every failure.

    Raises:
        UserError: one of them is not an outcome of a URL that failed.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name in DOWNLOADED or not (is_outcome(name) or name in ANY_OF):
            valid = [*(set(MEANINGS) - DOWNLOADED), *ANY_OF]
            raise UserError(f"--only: {name!r} is not an outcome to try again{nearest(name, valid)}")
    return names


def add_retry(plan: ShardPlan, output: Folder, *, only: Sequence[str], shard_size: int) -> ShardPlan:
    """A plan with a round of shards more: the URLs whose last outcome is one of `only`, or any failure.

    It stays as it is where nothing is to be tried again.
    """
    is_retried = _matches(only)
    failed = (_keep(table, is_retried) for table in _last_outcomes(plan, output))
    sizes = _write_shards(failed, output, first=plan.rounds[-1], shard_size=shard_size)
    if not sizes:
        return plan
    plan = ShardPlan(plan.identity, plan.num_urls, [*plan.rounds, plan.rounds[-1] + len(sizes)])
    plan.write(output)
    return plan


def _write_shards(tables: Iterable[pa.Table], output: Folder, *, first: int, shard_size: int) -> list[int]:
    """Write the URLs of shards, from number `first` on; the number of URLs of each."""
    folder = output / FOLDER
    for leftover in folder.names():  # of a plan that was cut and was another one
        stem, _, suffix = leftover.partition(".")
        if suffix.startswith("arrow") and int(stem) >= first:
            folder.delete(leftover)

    def write(number: int, part: pa.Table) -> int:
        with folder.writing(f"{first + number:05d}.arrow") as stream:
            pyarrow.feather.write_feather(part, stream, compression="zstd")
        return len(part)

    sizes: list[int] = []
    parts = enumerate(_slices(tables, shard_size))
    with ThreadPool(READERS) as pool:
        while some := list(itertools.islice(parts, READERS)):
            sizes += pool.starmap(write, some)
    return sizes


def _read_plan(output: Folder, name: str) -> pa.Table:
    with (output / FOLDER).open(f"{name}.arrow") as file:
        return pyarrow.feather.read_table(file)


def _slices(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows each, but for the last one."""
    rest: list[pa.Table] = []
    for table in tables:
        joined = pa.concat_tables([*rest, table])
        while len(joined) >= size:
            yield joined.slice(0, size)
            joined = joined.slice(size)
        rest = [joined] if len(joined) else []
    yield from rest


def _last_outcomes(plan: ShardPlan, output: Folder) -> Iterator[pa.Table]:
    """The URLs of the plan in its order, with their last outcomes as `previous`."""
    rounds = [plan.shards[low:high] for low, high in itertools.pairwise([0, *plan.rounds])]
    retries = [_Outcomes(output, names) for names in rounds[1:]]
    for name in rounds[0]:
        urls = _read_plan(output, name).drop_columns(["previous"])
        last = []
        for url, status in _outcomes(output, name):
            latest = status
            for retry in retries:
                latest = retry.pop(url) or latest
            last.append(latest)
        yield urls.append_column("previous", pa.array(last, pa.string()))


class _Outcomes:
    """How the URLs of a retry ended, which are some of those of the plan, in its order."""

    def __init__(self, output: Folder, names: Sequence[str]) -> None:
        self._rows = (row for name in names for row in _outcomes(output, name))
        self._next = next(self._rows, None)

    def pop(self, url: str) -> str | None:
        """The outcome of a URL; None if it is not the next one."""
        if self._next is None or self._next[0] != url:
            return None
        outcome = self._next[1]
        self._next = next(self._rows, None)
        return outcome


def _outcomes(output: Folder, name: str) -> Iterator[tuple[str, str]]:
    """URL and outcome of every row of a shard, in the order of the plan."""
    index = output.table(f"{name}.parquet", ["url", "status"])
    yield from zip(index["url"].to_pylist(), index["status"].to_pylist(), strict=True)


def _keep(table: pa.Table, is_retried: Callable[[str], bool]) -> pa.Table:
    return table.filter(pa.array(map(is_retried, table["previous"].to_pylist()), pa.bool_()))


def _matches(only: Sequence[str]) -> Callable[[str], bool]:
    prefixes = tuple(ANY_OF[name] for name in only if name in ANY_OF)

    def is_retried(outcome: str) -> bool:
        if outcome in DOWNLOADED:
            return False
        return not only or outcome in only or outcome.startswith(prefixes)

    return is_retried
