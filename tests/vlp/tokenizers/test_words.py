"""Word-level classes: lemmas of a corpus by frequency, and the words of a caption that are among them."""

import pickle
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vlp.tokenizers.lexicons import FileLexicon, singular
from vlp.tokenizers.words import (
    Words,
    WordsConfig,
    count_words,
    read_word_counts,
    words_of,
    write_word_counts,
)

CORPUS = ["Two dogs and a dog", "the dog's bus", "A cat; cats!", "a bus", "women see a woman", "one zebra"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_word_counts(count_words(CORPUS), tmp_path / "words.parquet")
    return tmp_path / "words.parquet"


def names(tokenizer: Words, caption: str) -> list[str]:
    return [tokenizer.token_of(i) for i in tokenizer.token_ids([caption])[0]]


def test_words_have_neither_case_nor_punctuation_nor_possessives() -> None:
    assert words_of("The dog\u2019s BALL, isn't caf\u00e9 &amp; x-ray 2!") == [
        "the",
        "dog",
        "ball",
        "isn't",
        "caf\u00e9",
        "x",
        "ray",
        "2",
    ]


def test_ids_are_ranks_of_the_lemmas_by_frequency(table: Path) -> None:
    tokenizer = WordsConfig(word_counts=table, min_count=2).build()
    assert tokenizer.lemmas == ("a", "dog", "bus", "cat", "woman")
    assert tokenizer.token_ids(["A woman, dogs, a zebra and unseen bus"]) == [[0, 4, 1, 0, 2]]
    assert tokenizer.frame == tokenizer.special_tokens == (5, 6)
    assert tokenizer.vocab_size == 7
    assert [tokenizer.token_of(i) for i in (1, 5, 6)] == ["dog", "<start_of_text>", "<end_of_text>"]


def test_a_caption_without_known_words_is_only_framed(table: Path) -> None:
    tokens, lengths = WordsConfig(word_counts=table, min_count=3).build().encode(["zebras", "a dog"])
    assert tokens.tolist() == [[2, 3, 0, 0], [2, 0, 1, 3]]
    assert lengths.tolist() == [2, 4]


def test_the_vocabulary_is_cut_off_by_size_and_by_stop_words(table: Path) -> None:
    assert WordsConfig(word_counts=table, min_count=1, max_size=2).build().lemmas == ("a", "dog")
    tokenizer = WordsConfig(word_counts=table, min_count=2, stop_words="drop").build()
    assert names(tokenizer, "a dog and the cats") == ["dog", "cat"]


def test_a_lexicon_of_ones_own_decides_what_a_word_is(table: Path, tmp_path: Path) -> None:
    file = tmp_path / "nouns.tsv"
    file.write_text("dog\tn02084071\ndogs\tn02084071\npuppy\tn02084071\ncat\tn02121620\n")
    tokenizer = WordsConfig(word_counts=table, min_count=1, lexicon=FileLexicon(path=file)).build()
    assert tokenizer.lemmas == ("n02084071", "n02121620")
    assert tokenizer.token_ids(["a puppy and a cat on a bus"]) == [[0, 1]]
    assert tokenizer.identity != WordsConfig(word_counts=table, min_count=1).build().identity
    file.write_text("dog n02084071\n")
    with pytest.raises(ValueError, match=r"nouns\.tsv is not a lexicon"):
        WordsConfig(word_counts=table, lexicon=FileLexicon(path=file)).build()


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        ("dogs", "dog"),
        ("buses", "bus"),
        ("bus", "bus"),
        ("boxes", "box"),
        ("beaches", "beach"),
        ("babies", "baby"),
        ("glass", "glass"),
        ("children", "child"),
        ("wolves", "wolf"),
        ("knives", "knife"),
        ("news", "news"),
        ("his", "his"),
        ("unknowns", "unknowns"),
    ],
)
def test_plurals_become_singulars_that_the_corpus_knows(word: str, lemma: str) -> None:
    counts = dict.fromkeys(("dog", "bus", "buse", "box", "beach", "baby", "new", "hi", "gla"), 5)
    assert singular(word, counts | {"bus": 1000, "bu": 5}) == lemma


def test_real_plurals_join_their_singulars(flickr8k: Path, tmp_path: Path) -> None:
    rows = pq.read_table(flickr8k / "dev.parquet", columns=["captions"])["captions"].to_pylist()
    captions = [caption for row in rows for caption in row]
    counts = count_words(captions)
    assert counts == sum((count_words([caption]) for caption in captions), Counter())
    write_word_counts(counts, tmp_path / "words.parquet")
    assert read_word_counts(tmp_path / "words.parquet") == counts
    tokenizer = WordsConfig(word_counts=tmp_path / "words.parquet").build()
    assert names(tokenizer, "two men and three girls on a grass with dogs") == (
        ["two", "man", "and", "three", "girl", "on", "a", "grass", "with", "dog"]
    )


def test_it_pickles_small_and_whole(table: Path) -> None:
    tokenizer = WordsConfig(word_counts=table, min_count=1).build()
    data = pickle.dumps(tokenizer)
    assert len(data) < 1000
    assert pickle.loads(data).token_ids(CORPUS) == tokenizer.token_ids(CORPUS)


def test_missing_and_foreign_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file: .*words\.parquet.*vlp docfreq"):
        WordsConfig(word_counts=tmp_path / "words.parquet").build()
    (tmp_path / "words.parquet").write_text("no table")
    with pytest.raises(ValueError, match=r"words\.parquet is not a table of word counts"):
        WordsConfig(word_counts=tmp_path / "words.parquet").build()
    with pytest.raises(ValueError, match="min_count must be at least 1, got 0"):
        WordsConfig(word_counts=tmp_path, min_count=0)
