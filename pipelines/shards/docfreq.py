"""The captions of shards to the document frequency and the count of every token, and the count of every word.

What a shard contains is counted once, and kept as one file per tokenizer and one of words; the results are
the sums. So they are exact, an interrupted stage goes on with what is missing, and a shard or tokenizer that
is added costs only itself. The words are the same for every tokenizer: the word-level one makes its
vocabulary of them.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial, reduce
from multiprocessing.pool import ThreadPool
from operator import add
from pathlib import Path
from typing import Annotated

from pipelines.compute.workers import open_workers
from pipelines.config.errors import blaming
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import absolute_paths
from pipelines.shards.counts import CountShard, read_tokens, tokens_file, words_file
from pipelines.tracking.journal import Journal
from pipelines.tracking.terminal import Progress
from vlp.core.config import StrictConfig, check_name
from vlp.core.markdown import markdown_table
from vlp.core.registry import ByName
from vlp.shards.contents import ShardsManifest, ShardStats
from vlp.shards.manifest import Manifest
from vlp.shards.published import COPIED_AT_ONCE, take
from vlp.shards.storage.address import AnyFolder, open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder
from vlp.tokenizers import TOKENIZERS, Tokenizer, TokenizerConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import DocumentFrequency
from vlp.tokenizers.frequency_summary import TokenRow, head_and_tail, summarize
from vlp.tokenizers.words import add_word_counts

TABLE, WORDS, SUMMARY = "document_frequency.parquet", "words.parquet", "summary.json"
PICTURE, HEAD_AND_TAIL = "rank_frequency.png", "head_and_tail.md"
ROWS_SHOWN = 25


@dataclass(frozen=True, kw_only=True)
class DocfreqConfig(StrictConfig):
    """Whose captions are counted, by which tokens."""

    shards: AnyFolder
    """Folder that `vlp download` made, or its address in an object store."""
    plugins: tuple[str, ...] = ()
    """Modules of one's own, whose tokenizers are choices, too."""
    tokenizer: Annotated[TokenizerConfig, ByName(TOKENIZERS)] = field(default_factory=ClipBPEConfig)
    """Its table is `document_frequency.parquet`."""
    more_tokenizers: dict[str, Annotated[TokenizerConfig, ByName(TOKENIZERS)]] = field(default_factory=dict)
    """Counted in the same pass, by names of one's own: `document_frequency-NAME.parquet`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.more_tokenizers:
            check_name(name)

    @property
    def tables(self) -> dict[str, TokenizerConfig]:
        """File name of every table, with the tokenizer whose tokens it counts."""
        more = {f"document_frequency-{name}.parquet": config for name, config in self.more_tokenizers.items()}
        return {TABLE: self.tokenizer} | more

    def build(self) -> dict[str, Tokenizer]:
        """The tokenizers by the file names of their tables.

        Raises:
            ConfigError: the file of one is missing or is none.
        """
        keys = ["tokenizer", *(f"more_tokenizers.{name}" for name in self.more_tokenizers)]
        built = {}
        for key, (file, config) in zip(keys, self.tables.items(), strict=True):
            with blaming(f"{key}: "):
                built[file] = config.build()
        return built


@dataclass(frozen=True, kw_only=True)
class DocfreqManifest(Manifest):
    """The manifest of a folder of frequency tables."""

    tokenizer: str
    """Identity of the tokenizer of the first table, which the next two counts are of, too."""
    num_documents: int
    num_distinct_tokens: int
    tables: Mapping[str, str]
    """File -> identity of its tokenizer."""


def docfreq(
    config: DocfreqConfig, output: Path, *, machine: MachineConfig, journal: Journal
) -> DocfreqManifest:
    """Write the tables, `words.parquet`, what is worth seeing of them and a manifest; returns the last."""
    shard_set = check_shards(config.shards)
    journal.dataset(
        name=config.shards.name,
        digest=shard_set.digest,
        source=str(config.shards.absolute()),
        context="docfreq",
        profile={"digest": shard_set.digest, "num_samples": shard_set.num_samples},
    )
    tokenizers, shards = config.build(), shard_set.shards
    parts = output / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    _count(config, [tokenizer.identity for tokenizer in tokenizers.values()], shards, parts, machine)
    checksums = [stats.tar_sha256 for stats in shards]
    add_word_counts((words_file(parts, checksum) for checksum in checksums), output / WORDS)
    totals = {
        file: reduce(add, (read_tokens(tokens_file(parts, checksum, t.identity)) for checksum in checksums))
        for file, t in tokenizers.items()
    }
    for file, total in totals.items():
        total.write(output / file, tokenizers[file])
    manifest = _summarize(totals, tokenizers, output)
    counts = {"num_documents": manifest.num_documents, "num_distinct_tokens": manifest.num_distinct_tokens}
    journal.metrics({f"docfreq/{key}": count for key, count in counts.items()})
    for file in (*totals, WORDS, SUMMARY, PICTURE, HEAD_AND_TAIL):
        journal.artifact(output / file, folder="docfreq")
    journal.image("view/frequencies", output / PICTURE)
    manifest.write(output)
    LocalFolder(parts).remove_temporary()
    return manifest


def check_shards(folder: Path | Folder) -> ShardsManifest:
    """The manifest of a folder of shards.

    Raises:
        ConfigError: the folder holds no shards.
    """
    with blaming("shards: "):
        return ShardsManifest.read(folder)


def _count(
    config: DocfreqConfig,
    identities: list[str],
    shards: Sequence[ShardStats],
    parts: Path,
    machine: MachineConfig,
) -> None:
    """Count the shards of which anything is missing, and bring all counts to this machine."""
    place = machine.in_storage(parts)
    there = place.names()

    def files_of(stats: ShardStats) -> list[Path]:
        checksum = stats.tar_sha256
        return [words_file(parts, checksum), *(tokens_file(parts, checksum, i) for i in identities)]

    todo = [stats for stats in shards if any(file.name not in there for file in files_of(stats))]
    if todo:
        _count_missing(config, todo, place, machine, total=len(shards))
    missing = [file for stats in shards for file in files_of(stats) if not file.is_file()]
    with ThreadPool(COPIED_AT_ONCE) as pool:
        pool.map(partial(take, place), missing)


def _count_missing(
    config: DocfreqConfig, todo: Sequence[ShardStats], place: Folder, machine: MachineConfig, *, total: int
) -> None:
    items = [{"name": stats.name, "tar_sha256": stats.tar_sha256} for stats in todo]
    tokenizers = [absolute_paths(tokenizer) for tokenizer in config.tables.values()]
    arguments = (open_folder(config.shards).absolute(), tokenizers, place.absolute())
    progress = Progress("docfreq", total, "shards")
    with closing(open_workers(machine).map(CountShard, arguments, items)) as counted:
        for done, _ in enumerate(counted, start=total - len(todo) + 1):
            progress.update(done)


def _summarize(
    totals: Mapping[str, DocumentFrequency], tokenizers: Mapping[str, Tokenizer], output: Path
) -> DocfreqManifest:
    """Write what is worth seeing of the tables; returns the manifest."""
    from vlp.pictures.rank_frequency import rank_frequency

    summaries = {file: summarize(total) for file, total in totals.items()}
    LocalFolder(output).write_json(SUMMARY, summaries)
    rank_frequency({Path(file).stem: total for file, total in totals.items()}).save(output / PICTURE)
    sections = [
        f"# {file}\n\n{_markdown(*head_and_tail(total, tokenizers[file], size=ROWS_SHOWN))}"
        for file, total in totals.items()
    ]
    (output / HEAD_AND_TAIL).write_text("\n".join(sections))
    contents = [
        (total.counts.tolist(), total.occurrences.tolist(), total.num_documents, total.tokenizer)
        for total in totals.values()
    ]
    first = totals[TABLE]
    return DocfreqManifest(
        digest=fingerprint(*contents),
        tokenizer=first.tokenizer,
        num_documents=first.num_documents,
        num_distinct_tokens=summaries[TABLE]["num_distinct_tokens"],
        tables={file: total.tokenizer for file, total in totals.items()},
    )


def _markdown(head: list[TokenRow], tail: list[TokenRow]) -> str:
    header = ["rank", "token", "captions", "share", "idf"]
    gap = [["...", "", "", "", ""]] if tail and tail[0].rank > head[-1].rank + 1 else []
    return markdown_table(header, [*map(_cells, head), *gap, *map(_cells, tail)])


def _cells(row: TokenRow) -> list[str]:
    return [
        f"{row.rank:,}",
        row.token,
        f"{row.document_frequency:,}",
        f"{row.share:.2%}",
        f"{row.idf:.2f}",
    ]
