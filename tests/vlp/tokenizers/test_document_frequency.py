"""Document frequencies are exact, add up, and survive the disk."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlp.tiny_world import TinyWorldConfig
from vlp.tiny_world.captions import draw_captions
from vlp.tiny_world.corpus import draw_split
from vlp.tokenizers import Tokenizer
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import DocumentFrequency, count_documents


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return ClipBPEConfig().build()


CAPTIONS = [
    "a red square and a red circle",
    "a a a a a",
    "",
    "!!! a photo, of the ﬁrst café",
    "red",
    "日本語 emoji 😀 tokens",
    *(f"a photo of {n} things " + "very " * n for n in range(90)),
]


def naive(captions: list[str], tokenizer: Tokenizer) -> Counter[int]:
    return Counter(token for caption in captions for token in set(tokenizer.token_ids([caption])[0][:75]))


def same(a: DocumentFrequency, b: DocumentFrequency) -> bool:
    return (
        np.array_equal(a.counts, b.counts)
        and np.array_equal(a.occurrences, b.occurrences)
        and a.counts.dtype == b.counts.dtype
        and (a.num_documents, a.tokenizer) == (b.num_documents, b.tokenizer)
    )


def test_counts_are_those_of_a_counter_of_sets(tokenizer: Tokenizer) -> None:
    found = count_documents(CAPTIONS, tokenizer)
    expected = naive(CAPTIONS, tokenizer)
    assert found.counts.shape == (tokenizer.vocab_size,)
    assert {i: int(found.counts[i]) for i in np.flatnonzero(found.counts)} == expected
    assert found.num_documents == len(CAPTIONS)
    every = Counter(token for caption in CAPTIONS for token in tokenizer.token_ids([caption])[0][:75])
    assert {i: int(found.occurrences[i]) for i in np.flatnonzero(found.occurrences)} == every


def test_the_counts_of_parts_add_up_to_those_of_the_whole(tokenizer: Tokenizer) -> None:
    parts = [CAPTIONS[:1], CAPTIONS[1:40], [], CAPTIONS[40:]]
    first, *others = (count_documents(part, tokenizer) for part in parts)
    total = sum(others, start=first)
    assert same(total, count_documents(CAPTIONS, tokenizer))


@pytest.mark.parametrize("captions", [CAPTIONS, [], ["", ""]])
def test_a_table_is_read_as_it_was_written(tokenizer: Tokenizer, tmp_path: Path, captions: list[str]) -> None:
    written = count_documents(captions, tokenizer)
    written.write(tmp_path / "table.parquet", tokenizer)
    assert same(DocumentFrequency.read(tmp_path / "table.parquet"), written)


def test_a_table_can_be_read_by_eye_from_the_most_frequent_token_down(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    count_documents(CAPTIONS, tokenizer).write(tmp_path / "table.parquet", tokenizer)
    rows = pq.read_table(tmp_path / "table.parquet").to_pylist()
    expected = naive(CAPTIONS, tokenizer)
    assert {row["token_id"]: row["document_frequency"] for row in rows} == expected
    frequencies = [row["document_frequency"] for row in rows]
    assert frequencies == sorted(frequencies, reverse=True)
    assert all(row["token"] == tokenizer.token_of(row["token_id"]) for row in rows)
    assert rows[0]["token"] == "a"


def test_counts_of_another_tokenizer_are_not_added(tokenizer: Tokenizer) -> None:
    ours = count_documents(CAPTIONS, tokenizer)
    theirs = replace(ours, tokenizer="another")
    with pytest.raises(ValueError, match=f"{tokenizer.identity}.*another"):
        _ = ours + theirs


def test_a_missing_table_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.parquet.*vlp docfreq"):
        DocumentFrequency.read(tmp_path / "nowhere.parquet")
    pq.write_table(pa.table({"token_id": [1], "document_frequency": [2]}), tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match=r"foreign\.parquet.*vlp docfreq"):
        DocumentFrequency.read(tmp_path / "foreign.parquet")


def test_a_corpus_of_many_scenes_is_counted_exactly(tokenizer: Tokenizer) -> None:
    config = TinyWorldConfig(num_train=300)
    scenes = draw_split(config, "train")
    captions = [text for scene, rng in scenes for text in draw_captions(scene, rng, count=4)]
    found = count_documents(captions, tokenizer)
    assert {i: int(found.counts[i]) for i in np.flatnonzero(found.counts)} == naive(captions, tokenizer)


def test_a_caption_is_counted_as_far_as_training_sees_it() -> None:
    """The counted tokens are those of the batches: neither cut-off words nor special tokens."""
    tokenizer = ClipBPEConfig(context_length=6).build()
    captions = ["one two three four five six", "six five", ""]
    tokens, lengths = tokenizer.encode(captions)
    rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
    expected = Counter(token for row, length in rows for token in set(row[1 : length - 1]))
    found = count_documents(captions, tokenizer)
    assert {i: int(found.counts[i]) for i in np.flatnonzero(found.counts)} == expected
    assert found.counts[tokenizer.token_ids(["six"])[0]].tolist() == [1]
