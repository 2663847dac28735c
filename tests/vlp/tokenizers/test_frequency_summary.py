"""The summary of a table: the weight of the top tokens, by the formula of SuperClass's own idf."""

from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest

from vlp.pictures.rank_frequency import rank_frequency
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import DocumentFrequency, count_documents
from vlp.tokenizers.frequency_summary import head_and_tail, idf, summarize

TOKENIZER = ClipBPEConfig().build()
CAPTIONS = ["a"] * 60 + ["a dog", "a cat", "a dog and a cat", "", "zebra"] * 8 + ["snow"]


@pytest.fixture(scope="module")
def frequency() -> DocumentFrequency:
    return count_documents(CAPTIONS, TOKENIZER)


def test_the_loss_weight_of_the_top_tokens_is_that_of_a_sum_over_captions(
    frequency: DocumentFrequency,
) -> None:
    documents = [set(caption.split()) for caption in CAPTIONS]
    df = Counter(word for words in documents for word in words)
    weight = {word: log((len(CAPTIONS) + 1) / (count + 1)) for word, count in df.items()}
    total = sum(weight[word] for words in documents for word in words)
    (top, _) = df.most_common(1)[0]
    found = summarize(frequency)
    assert top == "a"
    assert found["idf_weighted_label_mass"]["top_1"] == pytest.approx(df[top] * weight[top] / total)
    assert found["label_mass"]["top_1"] == pytest.approx(df[top] / sum(df.values()))
    assert found["label_mass"]["top_10"] == pytest.approx(1)
    assert found["idf_weighted_label_mass"]["top_1"] < found["label_mass"]["top_1"]
    assert found["num_distinct_tokens"] == len(df)
    assert found["distinct_tokens_per_document"] == pytest.approx(sum(map(len, documents)) / len(documents))


def test_idf_is_zero_where_every_caption_has_the_token() -> None:
    table = count_documents(["a dog", "a cat"], TOKENIZER)
    (a,) = TOKENIZER.token_ids(["a"])[0]
    assert idf(table)[a] == 0
    assert idf(table).max() == pytest.approx(log(3))


def test_head_and_tail_are_the_ends_of_the_ranking_without_overlap(frequency: DocumentFrequency) -> None:
    head, tail = head_and_tail(frequency, TOKENIZER, size=2)
    assert [(row.rank, row.token) for row in head] == [(1, "a"), (2, "dog")]  # equals by id
    assert [(row.rank, row.document_frequency) for row in tail] == [(5, 8), (6, 1)]
    assert (tail[-1].token, tail[-1].share) == ("snow", 1 / len(CAPTIONS))
    head, tail = head_and_tail(frequency, TOKENIZER, size=4)
    assert [row.rank for row in (*head, *tail)] == [1, 2, 3, 4, 5, 6]
    head, tail = head_and_tail(frequency, TOKENIZER, size=100)
    assert ([row.rank for row in head], tail) == ([1, 2, 3, 4, 5, 6], [])


def test_no_captions_have_a_summary_and_a_picture() -> None:
    nothing = count_documents([], TOKENIZER)
    assert summarize(nothing)["label_mass"]["top_1"] == 0
    assert head_and_tail(nothing, TOKENIZER, size=3) == ([], [])
    assert rank_frequency({"nothing": nothing}).size == rank_frequency({}).size


def test_the_picture_has_a_line_per_table(frequency: DocumentFrequency) -> None:
    def coloured(*names: str) -> int:
        tables = {
            name: replace(frequency, num_documents=frequency.num_documents << i)
            for i, name in enumerate(names)
        }
        pixels = np.asarray(rank_frequency(tables)).astype(int)
        return int((pixels.max(axis=-1) - pixels.min(axis=-1) > 50).sum())

    assert 0 == coloured() < coloured("one") < coloured("one", "two")
