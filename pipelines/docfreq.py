"""Ray Data: the captions of shards to the document frequency of every token, and the count of every word.

One vector, and one table of words, is counted per shard and kept beside the others; the results are their
sums. So they are exact, an interrupted stage goes on with the missing shards, and shards that are added cost
only themselves. The words are the same for every tokenizer: the word-level one makes its vocabulary of them.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cluster import connect
from pipelines.config import MachineConfig, absolute_paths, fingerprint
from pipelines.config_errors import ConfigError
from pipelines.ingest.shard import WRITER, remove_temporary, write_json
from pipelines.journal import Journal
from pipelines.progress import Progress
from pipelines.run_config import build_tokenizer
from vlp.config import StrictConfig
from vlp.data.document_frequency import DocumentFrequency, count_documents
from vlp.data.shards import MANIFEST, read_captions, read_manifest
from vlp.registry import one_of
from vlp.tokenizers import TOKENIZERS, TokenizerConfig
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.words import count_words, read_word_counts, write_word_counts

TABLE, WORDS = "document_frequency.parquet", "words.parquet"


@dataclass(frozen=True, kw_only=True)
class DocfreqConfig(StrictConfig):
    """Whose captions are counted, by which tokens."""

    shards: Path
    """Folder that `vlp download` made."""
    tokenizer: one_of(TOKENIZERS) = field(default_factory=ClipBPEConfig)  # pyright: ignore[reportInvalidTypeForm]


def docfreq(
    config: DocfreqConfig, output: Path, *, machine: MachineConfig, journal: Journal
) -> dict[str, Any]:
    """Write `document_frequency.parquet`, `words.parquet` and a manifest; returns the manifest."""
    shard_set = check_shards(config.shards)
    shards = shard_set["shards"]
    journal.dataset(
        name=config.shards.name,
        digest=shard_set["digest"],
        source=str(config.shards.absolute()),
        context="docfreq",
        profile={key: shard_set[key] for key in ("digest", "num_samples")},
    )
    tokenizer = build_tokenizer(config.tokenizer, "tokenizer")
    output.mkdir(parents=True, exist_ok=True)
    files = {s["name"]: output / f"{s['tar_sha256'][:16]}-{tokenizer.identity}.npz" for s in shards}
    words = {name: _words_file(file) for name, file in files.items()}
    todo = {name: file for name, file in files.items() if not (file.is_file() and words[name].is_file())}
    progress = Progress("docfreq", len(files), "shards")
    for done, _ in enumerate(_count(config, todo, machine) if todo else (), start=len(files) - len(todo) + 1):
        progress.update(done)
    total = reduce(add, (_read_counts(file) for file in files.values()))
    total.write(output / TABLE, tokenizer)
    write_word_counts(sum(map(Counter, map(read_word_counts, words.values())), Counter()), output / WORDS)
    manifest = {
        "digest": fingerprint(total.counts.tolist(), total.num_documents, tokenizer.identity),
        "tokenizer": tokenizer.identity,
        "num_documents": total.num_documents,
        "num_distinct_tokens": int(np.count_nonzero(total.counts)),
    }
    journal.metrics({f"docfreq/{key}": manifest[key] for key in ("num_documents", "num_distinct_tokens")})
    for file in (TABLE, WORDS):
        journal.artifact(output / file, folder="docfreq")
    write_json(output / MANIFEST, manifest)
    remove_temporary(output)
    return manifest


def check_shards(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of shards.

    Raises:
        ConfigError: the folder holds no shards.
    """
    try:
        return read_manifest(folder)
    except ValueError as error:
        raise ConfigError(f"shards: {error}") from error


class CountShard:
    """An actor that counts the captions of a shard."""

    def __init__(self, shards: Path, tokenizer: TokenizerConfig) -> None:
        self.shards = shards
        self.tokenizer = tokenizer.build()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        captions = read_captions(self.shards / f"{row['name']}.parquet")
        documents = [text for texts in captions for text in texts]
        file = Path(row["file"])
        temporary = file.with_suffix(f".{WRITER}.words.tmp")
        write_word_counts(count_words(documents), temporary)
        temporary.replace(_words_file(file))
        frequency = count_documents(documents, self.tokenizer)
        temporary = file.with_suffix(f".{WRITER}.tmp")
        with temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                counts=frequency.counts,
                num_documents=frequency.num_documents,
                tokenizer=frequency.tokenizer,
            )
        temporary.replace(file)
        return row


def _count(config: DocfreqConfig, todo: dict[str, Path], machine: MachineConfig) -> Any:
    connect(machine, min_cpus=1)
    import ray.data

    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=min(machine.data_workers, len(todo)))
    items = [{"name": name, "file": str(file.absolute())} for name, file in todo.items()]
    return (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map(
            CountShard,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(config.shards.absolute(), absolute_paths(config.tokenizer)),
            compute=actors,
            num_cpus=1,
        )
        .iter_rows()
    )


def _words_file(file: Path) -> Path:
    """The word counts of the shard whose token counts a file holds; named after the shard alone."""
    return file.with_name(f"{file.stem.split('-')[0]}-{WORDS}")


def _read_counts(file: Path) -> DocumentFrequency:
    with np.load(file) as content:
        return DocumentFrequency(content["counts"], int(content["num_documents"]), str(content["tokenizer"]))
