"""Whole words as classes: the frequent lemmas of a corpus (SuperClass, arXiv:2411.03313, table 4; CatLIP)."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlp.core.config import AtLeast
from vlp.core.registry import ByName
from vlp.tokenizers.clip_bpe import VERSION, clean
from vlp.tokenizers.lexicons import LEXICONS, Lemma, Lexicon, PluralLexicon
from vlp.tokenizers.token_rows import TokenRows
from vlp.tokenizers.tokenizer import TOKENIZERS, Tokenizer, TokenizerConfig
from vlp.tokenizers.word_memo import WordMemo, split_words

WORD = re.compile(r"\w+(?:'\w+)*")
COUNTS = pa.schema({"word": pa.string(), "count": pa.int64()})
MIN_TO_ADD = 2**20  # rows read before they are added up, so that many small tables are added at once


@TOKENIZERS.register
@dataclass(frozen=True, kw_only=True)
class WordsConfig(TokenizerConfig):
    """Settings of the vocabulary of lemmas."""

    name: Literal["words"] = "words"
    word_counts: Path
    """Table `words.parquet` that `vlp docfreq` made, of whatever tokenizer."""
    lexicon: Annotated[Lexicon, ByName(LEXICONS)] = PluralLexicon()
    """Which lemma each word has."""
    min_count: Annotated[int, AtLeast(1)] = 5
    """Occurrences in the corpus that a lemma needs to be a class."""
    max_size: Annotated[int, AtLeast(1)] = 40_000
    """Classes at most: the most frequent lemmas."""

    def build(self) -> "Words":
        return Words(self)


class Words(Tokenizer):
    """Ids are ranks in the frequency-sorted vocabulary; words outside it are left out."""

    def __init__(self, config: WordsConfig) -> None:
        counts = read_word_counts(config.word_counts)
        lemma = config.lexicon.build(counts)
        self.lemmas = frequent_lemmas(counts, lemma, min_count=config.min_count, max_size=config.max_size)
        ids = {name: i for i, name in enumerate(self.lemmas)}
        # The lemmas of all known words, as some lexicons depend on the counts.
        super().__init__(config, VERSION, self.lemmas, sorted((word, lemma(word)) for word in counts))
        self.id_of = lambda word: ids.get(lemma(word) or "")
        self.memo = WordMemo(clean, self._word_ids)
        self.frame = (len(ids), len(ids) + 1)
        self.special_tokens = self.frame
        self.vocab_size = len(ids) + 2

    def _rows(self, captions: Sequence[str]) -> TokenRows:
        return self.memo(captions)

    def _word_ids(self, text: str) -> list[int]:
        return [i for i in map(self.id_of, _words_in(text)) if i is not None]

    def _name(self, token_id: int) -> str:
        return (*self.lemmas, "<start_of_text>", "<end_of_text>")[token_id]


def words_of(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation and the possessive `'s`."""
    return _words_in(clean(caption))


def frequent_lemmas(
    counts: Mapping[str, int], lemma: Lemma, *, min_count: int, max_size: int
) -> tuple[str, ...]:
    """The lemmas that occur often enough, most frequent first, equals by the alphabet."""
    totals: Counter[str] = Counter()
    for word, count in counts.items():
        if name := lemma(word):
            totals[name] += count
    frequent = [name for name, count in totals.items() if count >= min_count]
    return tuple(sorted(frequent, key=lambda name: (-totals[name], name))[:max_size])


def count_words(captions: Iterable[str]) -> Counter[str]:
    """How often each form of each word occurs."""
    texts, codes, _ = split_words([clean(caption) for caption in captions])
    totals: Counter[str] = Counter()
    for text, count in zip(texts, np.bincount(codes, minlength=len(texts)).tolist(), strict=True):
        for word in _words_in(text):
            totals[word] += count
    return totals


def write_word_counts(counts: Mapping[str, int], file: Path | BinaryIO) -> None:
    """Save as Parquet: `word`, `count`, most frequent first, equals by the alphabet."""
    numbers = pa.array(counts.values(), pa.int64())
    _write(pa.table({"word": pa.array(counts.keys(), pa.string()), "count": numbers}), file)


def add_word_counts(files: Iterable[Path], total: Path) -> None:
    """Add up tables of word counts into one; the memory it takes is that of the distinct words."""
    waiting, num_waiting = [COUNTS.empty_table()], 0
    for file in files:
        waiting.append(pq.read_table(file))
        num_waiting += len(waiting[-1])
        if num_waiting > max(MIN_TO_ADD, len(waiting[0])):
            waiting, num_waiting = [_add(waiting)], 0
    _write(_add(waiting), total)


def read_word_counts(file: Path) -> dict[str, int]:
    """The inverse of `write_word_counts`; a ValueError if the file is none of ours."""
    if not file.is_file():
        raise ValueError(f"no such file: {file}; make it with `vlp docfreq`")
    try:
        table = pq.read_table(file, columns=["word", "count"])
    except (pa.ArrowInvalid, KeyError) as error:
        raise ValueError(f"{file} is not a table of word counts; make one with `vlp docfreq`") from error
    return dict(zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True))


def _words_in(text: str) -> list[str]:
    """The words of clean text: of a caption, or of any part between spaces, as no word spans one."""
    return [word.removesuffix("'s") for word in WORD.findall(text.replace("\u2019", "'"))]


def _add(tables: list[pa.Table]) -> pa.Table:
    added = pa.concat_tables(tables).group_by("word").aggregate([("count", "sum")])
    return added.select(["word", "count_sum"]).rename_columns(["word", "count"])


def _write(counts: pa.Table, file: Path | BinaryIO) -> None:
    pq.write_table(counts.sort_by([("count", "descending"), ("word", "ascending")]), file)
