"""MetaCLIP's balance of a folder of shards (arXiv:2309.16671): which samples stay, as a selection."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.config.errors import ConfigError, blaming
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import absolute_paths
from pipelines.curation.making import Making, open_source, share_table
from pipelines.shards.counts import read_tokens
from pipelines.shards.docfreq import DocfreqManifest
from pipelines.tracking.journal import Journal
from vlp.core.config import AtLeast, StrictConfig
from vlp.core.registry import ByName
from vlp.shards.outcome import SUCCESS
from vlp.shards.selection import SelectionManifest, write_columns
from vlp.shards.storage.address import AnyFolder
from vlp.shards.storage.folder import Folder
from vlp.tokenizers import TOKENIZERS, Tokenizer, TokenizerConfig
from vlp.tokenizers.balancing import pair_number, pass_draw, pass_probability
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import DocumentFrequency, count_documents, count_rows

INDEX_COLUMNS = ["key", "url", "captions", "status", "sha256"]
COLUMNS = {"kept": pa.bool_(), "passed": pa.int32()}
"""What a selection has of every row: whether it is a sample that stays, and how many captions passed."""
PICTURE = "rank_frequency.png"
ROWS_AT_ONCE = 2**13
WHEN = ("before", "after")


@dataclass(frozen=True, kw_only=True)
class BalanceSettings(StrictConfig):
    """How strongly a folder of shards is balanced."""

    plugins: tuple[str, ...] = ()
    """Modules of one's own, whose tokenizers are choices, too."""
    tokenizer: Annotated[TokenizerConfig, ByName(TOKENIZERS)] = field(default_factory=ClipBPEConfig)
    """Its tokens are the entries; one of those that `vlp docfreq` counted."""
    t: Annotated[float, AtLeast(1)] = 20_000
    """Captions of an entry up to which all of them pass: a draw passes with probability t / max(count, t).
    MetaCLIP's 20,000 is for 1.6 billion pairs, of which 400 million stay."""
    seed: int = 0
    """Of the draws, which depend on nothing else but the image, the caption and the entry."""


@dataclass(frozen=True, kw_only=True)
class BalanceConfig(BalanceSettings):
    """What is balanced, by which counts."""

    shards: AnyFolder
    """Folder of shards, or its address in an object store."""
    docfreq: AnyFolder
    """Folder that `vlp docfreq` made, of these shards or of more."""

    def build(self) -> Tokenizer:
        """The tokenizer; a ConfigError if its file is missing, or is none."""
        with blaming("tokenizer: "):
            return self.tokenizer.build()

    def counts(self, tokenizer: Tokenizer) -> DocumentFrequency:
        """The counts of the tokenizer's tokens.

        Raises:
            ConfigError: the folder has no tables, or none of this tokenizer.
        """
        try:
            tables = DocfreqManifest.read(self.docfreq).tables
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"--docfreq: {self.docfreq} is not a folder of frequency tables; make one with `vlp docfreq`"
            ) from error
        for file, identity in tables.items():
            if identity == tokenizer.identity:
                with blaming("--docfreq: "):
                    return DocumentFrequency.of_table(self.docfreq.table(file), self.docfreq / file)
        raise ConfigError(
            f"--docfreq: {self.docfreq} counts the tokens of other tokenizers, or another context length "
            f"({', '.join(tables.values())}), than tokenizer.name={self.tokenizer.name} "
            f"({tokenizer.identity}); set tokenizer as it was counted, or count it with `vlp docfreq`"
        )


def balance(
    config: BalanceConfig, output: Folder, *, machine: MachineConfig, journal: Journal
) -> SelectionManifest:
    """Write the selection, whose columns are `COLUMNS`; returns its manifest.

    An image with several captions is several pairs, and stays if any of them does.
    """
    tokenizer = config.build()
    frequency, shards = config.counts(tokenizer), open_source(config.shards)
    made = fingerprint("balance", config.t, config.seed, tokenizer.identity, frequency.counts.tolist())
    making = Making("balance", config.shards, shards, made, output, machine, journal)
    probability = pass_probability(frequency.counts, config.t)
    making.fill(BalanceShard, (absolute_paths(config.tokenizer), probability, config.seed))
    making.bring([*making.files, *(counts_file(file, when) for file in making.files for when in WHEN)])
    totals = {when: _total(making.place, making.files, when) for when in WHEN}
    return _finish(making, totals, is_head=frequency.counts > config.t)


def counts_file(file: str, when: str) -> str:
    """Beside the file of a shard: the document frequencies `before` and `after` the balance."""
    return file.replace(".parquet", f"-{when}.npz")


def _total(place: Folder, files: Sequence[str], when: str) -> DocumentFrequency:
    def read(file: str) -> DocumentFrequency:
        with place.fetched(counts_file(file, when)) as stream:
            return read_tokens(stream)

    return reduce(add, map(read, files))


def _finish(
    making: Making, totals: dict[str, DocumentFrequency], *, is_head: np.ndarray
) -> SelectionManifest:
    from vlp.pictures.rank_frequency import rank_frequency

    passed = np.concatenate([making.place.table(file, ["passed"])["passed"] for file in making.files])
    images = {"before": making.manifest.num_samples, "after": int(np.count_nonzero(passed))}
    numbers = {when: _numbers(images[when], total, is_head) for when, total in totals.items()}
    counts: dict[str, float] = {
        "share_kept": images["after"] / images["before"],
        "share_passed": int(passed.sum()) / max(1, totals["before"].num_documents),
    }
    for when, found in numbers.items():
        counts |= {f"{name.replace(' ', '_')}_{when}": count for name, count in found.items()}
        counts[f"head_share_{when}"] = found["head entries"] / max(1, found["entries"])
    shares = [f"{counts[f'head_share_{when}']:.1%} {when}" for when in WHEN]
    said = [
        f"Of the captions {counts['share_passed']:.1%} passed; the others that are left share their images.",
        f"Of the entries those in more than t captions, the head, are {', '.join(shares)}.",
    ]
    table = "\n".join([share_table(*numbers.values()), *said, ""])
    columns = {name: str(kind) for name, kind in COLUMNS.items()}
    return making.finish(table, {PICTURE: rank_frequency(totals)}, columns=columns, counts=counts)


def _numbers(num_images: int, total: DocumentFrequency, is_head: np.ndarray) -> dict[str, int]:
    entries, head = int(total.counts.sum()), int(total.counts[is_head].sum())
    return {
        "images": num_images,
        "captions": total.num_documents,
        "entries": entries,
        "head entries": head,
        "tail entries": entries - head,
        "distinct entries": int(np.count_nonzero(total.counts)),
    }


class Judged(NamedTuple):
    """Some rows of an index."""

    passed: np.ndarray
    """(R,) int64, how many captions of each passed."""
    before: DocumentFrequency
    """Of the captions of all of them."""
    after: DocumentFrequency
    """Of the captions of those that stay."""


class BalanceShard:
    """A worker that writes which samples of a shard stay."""

    def __init__(
        self, shards: Folder, place: Folder, tokenizer: TokenizerConfig, probability: np.ndarray, seed: int
    ) -> None:
        self.shards, self.place = shards, place
        self.tokenizer, self.probability, self.seed = tokenizer.build(), probability, seed

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Judge the shard of `row["name"]`, and write `row["file"]` after the counts that are beside it."""
        index = self.shards.table(f"{row['name']}.parquet", INDEX_COLUMNS)
        parts = [
            self._judge(index.slice(start, ROWS_AT_ONCE)) for start in range(0, len(index), ROWS_AT_ONCE)
        ]
        nothing = count_documents([], self.tokenizer)
        for when in WHEN:
            total = reduce(add, (getattr(part, when) for part in parts), nothing)
            with self.place.writing(counts_file(row["file"], when)) as stream:
                np.savez_compressed(stream, **vars(total))
        passed = np.concatenate([np.zeros(0, dtype=np.int64), *(part.passed for part in parts)])
        columns = {"kept": passed > 0, "passed": passed.astype(np.int32)}
        write_columns(self.place, row["file"], index["key"], columns)
        return row

    def _judge(self, index: pa.Table) -> Judged:
        rows = [row | {"captions": _captions(row)} for row in index.to_pylist()]
        texts = [text for row in rows for text in row["captions"]]
        numbers = [pair_number(_name(row), text) for row in rows for text in row["captions"]]
        tokens = self.tokenizer.training_rows(texts)
        stays = pass_draw(tokens, np.array(numbers, np.int64), self.probability, seed=self.seed)
        owners = np.arange(len(rows)).repeat([len(row["captions"]) for row in rows])
        passed = np.bincount(owners[stays], minlength=len(rows))
        left = tokens.take(np.flatnonzero(passed[owners]))
        return Judged(passed, count_rows(tokens, self.tokenizer), count_rows(left, self.tokenizer))


def _captions(row: dict[str, Any]) -> list[str]:
    return (row["captions"] or []) if row["status"] == SUCCESS else []


def _name(row: dict[str, Any]) -> str:
    """What an image goes by in every folder of shards that it may be in."""
    return row["sha256"] or row["url"] or row["key"]
