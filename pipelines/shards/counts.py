"""What the captions of one shard contain, counted by a worker: one file per tokenizer, and one of words.

Each file exists whole or not at all; what is there is not counted again.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlp.shards.outcome import SUCCESS
from vlp.shards.storage.folder import Folder, LocalFile
from vlp.tokenizers import Tokenizer, TokenizerConfig
from vlp.tokenizers.document_frequency import DocumentFrequency, count_documents
from vlp.tokenizers.words import count_words, write_word_counts

CAPTIONS_AT_ONCE = 2**14


def words_file(folder: Path, tar_sha256: str) -> Path:
    """Where the word counts of a shard are kept."""
    return folder / f"{tar_sha256[:16]}-words.parquet"


def tokens_file(folder: Path, tar_sha256: str, tokenizer: str) -> Path:
    """Where a shard's counts of tokens are kept; of a tokenizer by its identity."""
    return folder / f"{tar_sha256[:16]}-tokens-{tokenizer}.npz"


def read_tokens(file: Path | LocalFile) -> DocumentFrequency:
    """The document frequencies of one shard."""
    with np.load(file) as content:
        return DocumentFrequency(
            content["counts"],
            int(content["num_documents"]),
            str(content["tokenizer"]),
            content["occurrences"],
        )


class CountShard:
    """An actor that writes what is missing of a shard's files into `folder`."""

    def __init__(self, shards: Folder, tokenizers: list[TokenizerConfig], folder: Folder) -> None:
        self.shards = shards
        self.tokenizers = [config.build() for config in tokenizers]
        self.folder, self._there = folder, folder.names()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Count the shard of `row["name"]`, whose tar has the checksum `row["tar_sha256"]`."""
        captions = _captions(self.shards.table(f"{row['name']}.parquet", ["status", "captions"]))
        words = words_file(Path(), row["tar_sha256"]).name
        if words not in self._there:
            counts = _count_words(captions)
            with self.folder.writing(words) as stream:
                write_word_counts(counts, stream)
        for tokenizer in self.tokenizers:
            file = tokens_file(Path(), row["tar_sha256"], tokenizer.identity).name
            if file not in self._there:
                frequency = _count_tokens(captions, tokenizer)
                with self.folder.writing(file) as stream:
                    np.savez_compressed(stream, **vars(frequency))
        return row


def _captions(index: pa.Table) -> pa.Array:
    """All captions of all samples of a shard, one after another."""
    return index.filter(pc.field("status") == SUCCESS)["captions"].combine_chunks().flatten()


def _batches(captions: pa.Array) -> Iterator[list[str]]:
    for start in range(0, len(captions), CAPTIONS_AT_ONCE):
        yield captions.slice(start, CAPTIONS_AT_ONCE).to_pylist()


def _count_words(captions: pa.Array) -> Counter[str]:
    total: Counter[str] = Counter()
    for batch in _batches(captions):
        total.update(count_words(batch))
    return total


def _count_tokens(captions: pa.Array, tokenizer: Tokenizer) -> DocumentFrequency:
    total = count_documents([], tokenizer)
    for batch in _batches(captions):
        total += count_documents(batch, tokenizer)
    return total
