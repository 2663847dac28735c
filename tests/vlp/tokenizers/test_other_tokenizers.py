"""WordPiece, SentencePiece and stop words: id for id what the reference tokenizers give."""

import pickle
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import BertWordPieceTokenizer

from tests.paths import SHARED_DATA
from vlp.tokenizers import Tokenizer
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.sentencepiece import SentencePieceConfig
from vlp.tokenizers.stop_words import STOP_WORDS, drop_stop_words
from vlp.tokenizers.wordpiece import WordPieceConfig

ASSETS = SHARED_DATA / "text_assets"
CAPTIONS = [
    "",
    " \t\n",
    "a photo of a cat",
    "It's unbelievably well-lit, isn't it?! (caf\u00e9 na\u00efve \u00c5ngstr\u00f6m)",
    "日本語 emoji 😀 tokens 👩‍👩‍👧",
    "العربية עברית ไทย हिन्दी русский Ελληνικά",
    "bell\x07 null\x00 zero\u200bwidth\ufeff soft\u00adhyphen \u3000 wide",
    "[CLS] spelt [MASK] out [sep]",
    "x" * 101 + " " + "y" * 100,
    "supercalifragilisticexpialidocious",
]


def asset(name: str) -> Path:
    file = (ASSETS / name).resolve()
    if not file.is_file():
        pytest.skip(f"needs {name}")
    return file


@pytest.fixture(scope="module")
def wordpiece() -> Tokenizer:
    return WordPieceConfig(vocab_file=asset("bert_base_uncased_vocab.txt")).build()


@pytest.fixture(scope="module")
def t5() -> Tokenizer:
    pytest.importorskip("sentencepiece")
    return SentencePieceConfig(model_file=asset("t5_sentencepiece_32k.model")).build()


@pytest.fixture(scope="module")
def real_captions(flickr8k: Path) -> list[str]:
    rows = pq.read_table(flickr8k / "dev.parquet", columns=["captions"])["captions"].to_pylist()
    return [caption for row in rows for caption in row]


def wordpiece_by_the_book(caption: str, vocab: dict[str, int]) -> list[int]:
    """BERT's `tokenization.py`, for Latin letters: split, then the longest piece from the left."""
    text = unicodedata.normalize("NFD", caption.lower())
    text = "".join(char for char in text if unicodedata.category(char) != "Mn")
    words = "".join(f" {c} " if not c.isalnum() and not c.isspace() else c for c in text).split()
    ids: list[int] = []
    for word in words:
        pieces, start = [], 0
        while start < len(word):
            ends = range(len(word), start, -1)
            prefix = "##" if start else ""
            end = next((end for end in ends if prefix + word[start:end] in vocab), None)
            if end is None:
                pieces = [vocab["[UNK]"]]
                break
            pieces.append(vocab[prefix + word[start:end]])
            start = end
        ids += pieces
    return ids


def test_wordpiece_equals_the_reference(wordpiece: Tokenizer) -> None:
    reference = BertWordPieceTokenizer(str(asset("bert_base_uncased_vocab.txt")), lowercase=True)
    expected = [reference.encode(caption, add_special_tokens=False).ids for caption in CAPTIONS]
    assert wordpiece.token_ids(CAPTIONS) == expected
    framed = reference.encode("a photo of a cat").ids
    assert wordpiece.encode(["a photo of a cat"])[0].tolist() == [framed]
    assert framed == [101, 1037, 6302, 1997, 1037, 4937, 102]


def test_wordpiece_of_real_captions_is_that_of_the_book(
    wordpiece: Tokenizer, real_captions: list[str]
) -> None:
    lines = asset("bert_base_uncased_vocab.txt").read_text().splitlines()
    vocab = {piece: i for i, piece in enumerate(lines)}
    assert len(real_captions) >= 5000
    expected = [wordpiece_by_the_book(caption, vocab) for caption in real_captions]
    assert wordpiece.token_ids(real_captions) == expected


def test_wordpiece_of_a_cased_vocabulary_keeps_case_and_accents(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Caf\u00e9", "cafe", "##s"]))
    keep, lower = (WordPieceConfig(vocab_file=file, case=case).build() for case in ("keep", "lower"))
    assert keep.token_ids(["Caf\u00e9s cafe"]) == [[5, 7, 6]]
    assert lower.token_ids(["Caf\u00e9s cafe"]) == [[6, 7, 6]]
    assert keep.identity != lower.identity
    assert [keep.token_of(i) for i in (5, 7, 0)] == ["Caf\u00e9", "…s", "[PAD]"]


def test_sentencepiece_equals_the_reference(t5: Tokenizer, real_captions: list[str]) -> None:
    from sentencepiece import SentencePieceProcessor

    reference: Any = SentencePieceProcessor(model_file=str(asset("t5_sentencepiece_32k.model")))
    captions = CAPTIONS + real_captions[::5]
    assert t5.token_ids(captions) == [reference.encode(caption) for caption in captions]


def test_t5_lacks_a_start_of_text_and_gets_one(t5: Tokenizer) -> None:
    tokens, lengths = t5.encode(["a photo of a cat"])
    assert tokens.tolist() == [[32000, 3, 9, 1202, 13, 3, 9, 1712, 1]]
    assert lengths.tolist() == [9]
    assert t5.vocab_size == 32001
    assert {0, 1, 2, 32000} <= set(t5.special_tokens)
    assert [t5.token_of(i) for i in (32000, 1712, 1)] == ["<s>", "cat", "</s>"]


@pytest.mark.parametrize("name", ["wordpiece", "t5"])
def test_every_tokenizer_pickles_small_names_its_ids_and_cuts(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    data = pickle.dumps(tokenizer)
    assert len(data) < 1000
    assert pickle.loads(data).token_ids(CAPTIONS) == tokenizer.token_ids(CAPTIONS)
    names = [tokenizer.token_of(i) for i in range(tokenizer.vocab_size)]
    assert all(names)
    for token_id in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match="token id must be in 0"):
            tokenizer.token_of(token_id)
    tokens, lengths = tokenizer.encode(["cat " * 500])
    assert (tokens.shape, lengths.item()) == ((1, 77), 77)
    assert (tokens[0, 0], tokens[0, -1]) == tokenizer.frame
    assert set(tokenizer.frame) <= set(tokenizer.special_tokens)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    for config in (WordPieceConfig(vocab_file=file), ClipBPEConfig(merges_file=file)):
        with pytest.raises(ValueError, match=r"no such file: .*vocab\.txt"):
            config.build()
    file.write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"vocab\.txt is not a vocabulary of BERT: it has no \[PAD\]"):
        WordPieceConfig(vocab_file=file).build()
    pytest.importorskip("sentencepiece")
    with pytest.raises(ValueError, match=r"vocab\.txt is not a SentencePiece model"):
        SentencePieceConfig(model_file=file).build()


def test_stop_words_are_whole_words_of_any_case() -> None:
    assert len(STOP_WORDS) == 179
    words = drop_stop_words(
        "The theatre, ISN'T it? Don\u2019t and-or a dog's on\u00e9 \u0130 the_the"
    ).split()
    assert words == ["theatre,", "?", "-", "dog's", "on\u00e9", "\u0130", "the_the"]


def test_without_stop_words_a_caption_has_the_tokens_of_its_other_words() -> None:
    drop, keep = (ClipBPEConfig(stop_words=stop_words).build() for stop_words in ("drop", "keep"))
    assert drop.token_ids(["A man with the Dogs"]) == keep.token_ids(["man dogs"])
    assert drop.identity != keep.identity
