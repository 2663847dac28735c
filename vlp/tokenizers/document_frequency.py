"""How many captions contain each token, and how often it occurs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlp.tokenizers import Tokenizer
from vlp.tokenizers.token_rows import TokenRows


@dataclass(frozen=True)
class DocumentFrequency:
    """Counts over a set of captions; each caption is one document."""

    counts: np.ndarray
    """(vocabulary,) int64."""
    num_documents: int
    tokenizer: str
    """Identity of the tokenizer whose ids are counted."""
    occurrences: np.ndarray
    """(vocabulary,) int64, how often each token occurs, also twice in one caption."""

    def __add__(self, other: "DocumentFrequency") -> "DocumentFrequency":
        if self.tokenizer != other.tokenizer:
            raise ValueError(f"cannot add counts of two tokenizers, {self.tokenizer} and {other.tokenizer}")
        return DocumentFrequency(
            self.counts + other.counts,
            self.num_documents + other.num_documents,
            self.tokenizer,
            self.occurrences + other.occurrences,
        )

    def write(self, path: Path, tokenizer: Tokenizer) -> None:
        """Save as Parquet: `token_id`, `token`, `document_frequency`, `occurrences`; those in most captions
        first, zeros left out."""
        ids = np.argsort(-self.counts, kind="stable")[: np.count_nonzero(self.counts)]
        columns = {
            "token_id": ids,
            "token": [tokenizer.token_of(int(i)) for i in ids],
            "document_frequency": self.counts[ids],
            "occurrences": self.occurrences[ids],
        }
        metadata = {
            "tokenizer": self.tokenizer,
            "num_documents": str(self.num_documents),
            "vocab_size": str(len(self.counts)),
        }
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)

    @classmethod
    def read(cls, path: Path) -> "DocumentFrequency":
        """The inverse of `write`; a ValueError if the file is none of ours."""
        if not path.is_file():
            raise ValueError(f"no such file: {path}; make it with `vlp docfreq`")
        return cls.of_table(pq.read_table(path), path)

    @classmethod
    def of_table(cls, table: pa.Table, place: Any) -> "DocumentFrequency":
        """The same of a file that is read already; `place` names it."""
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if "tokenizer" not in metadata or "occurrences" not in table.column_names:
            raise ValueError(f"{place} is not a document-frequency table; make one with `vlp docfreq`")
        counts, occurrences = np.zeros((2, int(metadata["vocab_size"])), dtype=np.int64)
        ids = table["token_id"].to_numpy()
        counts[ids] = table["document_frequency"].to_numpy()
        occurrences[ids] = table["occurrences"].to_numpy()
        return cls(counts, int(metadata["num_documents"]), metadata["tokenizer"], occurrences)


def count_documents(captions: Sequence[str], tokenizer: Tokenizer) -> DocumentFrequency:
    """Count in how many captions each token occurs, and how often in all of them.

    A caption is counted up to the context length, as training sees it.
    """
    return count_rows(tokenizer.training_rows(captions), tokenizer)


def count_rows(rows: TokenRows, tokenizer: Tokenizer) -> DocumentFrequency:
    """The same of captions that are tokens already."""
    ids, lengths = rows
    # A token's second occurrence in a caption has the key of its first.
    keys = np.unique(np.arange(len(lengths)).repeat(lengths) * tokenizer.vocab_size + ids)
    counts = np.bincount(keys % tokenizer.vocab_size, minlength=tokenizer.vocab_size)
    occurrences = np.bincount(ids, minlength=tokenizer.vocab_size)
    return DocumentFrequency(counts, len(lengths), tokenizer.identity, occurrences)
