"""Whatever a caption holds, every tokenizer gives what its reference gives: no crash, every id in range.

Every script, control characters, HTML entities, mojibake, lone surrogates, endless captions, and mixtures.
"""

import html.entities
import random
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import BertWordPieceTokenizer

from tests.paths import SHARED_DATA
from vlp.tokenizers import Tokenizer
from vlp.tokenizers.clip_bpe import ClipBPEConfig, clean
from vlp.tokenizers.document_frequency import count_documents
from vlp.tokenizers.sentencepiece import SentencePieceConfig
from vlp.tokenizers.wordpiece import WordPieceConfig
from vlp.tokenizers.words import WORD, WordsConfig, count_words, write_word_counts

ASSETS = SHARED_DATA / "text_assets"
WHITE_SPACE = ["", "", "", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "\x00", "\x1c", "\u200b"]
BETWEEN = [*WHITE_SPACE, "'s", "&", "1", ".", "A"]
LARGE = range(0x3400, 0xD7A4), range(0xE000, 0xF900), range(0x17000, sys.maxunicode + 1)  # sampled


class Subject(NamedTuple):
    tokenizer: Tokenizer
    reference: Callable[[str], list[int]]


def characters() -> list[str]:
    """Every character of the small scripts, assigned or not, and some of the large ones; no surrogates."""
    codes = [code for code in range(0x17000) if not any(code in block for block in LARGE)]
    codes += [code for block in LARGE for code in block[::97]]
    return [chr(code) for code in codes if not 0xD800 <= code < 0xE000]


def by_script(alphabet: list[str]) -> list[list[str]]:
    scripts: dict[str, list[str]] = {}
    for char in alphabet:
        scripts.setdefault(unicodedata.name(char, "unnamed").split()[0], []).append(char)
    return list(scripts.values())


def mojibake(text: str, wrong: str) -> str:
    return text.encode().decode(wrong, errors="replace")


def any_text() -> list[str]:
    draw = random.Random(0)
    alphabet = characters()
    scripts = by_script(alphabet)
    once = ["".join(alphabet[i : i + 40]) for i in range(0, len(alphabet), 40)]
    apart = [" ".join(alphabet[i : i + 12]) for i in range(0, len(alphabet), 12)]
    mixed = [
        "".join(draw.choice(draw.choice(scripts)) + draw.choice(BETWEEN) for _ in range(draw.randrange(60)))
        for _ in range(1500)
    ]
    broken = [
        mojibake("".join(draw.choices(script, k=8)), wrong)
        for script in draw.sample(scripts, 120)
        for wrong in ("latin-1", "cp1252", "cp437")
    ]
    entities = [f"a &{name} b&{name.rstrip(';')}&amp;{name}" for name in html.entities.html5]
    special = [
        "<start_of_text>x<END_of_text>",
        "[CLS][SEP] [mask]x[MASK]",
        "</s><s><pad><extra_id_0>",
        "",
        " ",
    ]
    endless = ["x" * 20_000, "word " * 3000, "\u65e5\u672c" * 3000, "&amp;" * 500, "\u0301" * 500, "'s" * 500]
    return [*once, *apart, *mixed, *broken, *entities, *special, *endless]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return any_text()


def clip_bpe(_: Path) -> Subject:
    return Subject(ClipBPEConfig().build(), SimpleTokenizer().encode)


def wordpiece(_: Path) -> Subject:
    file = asset("bert_base_uncased_vocab.txt")
    reference = BertWordPieceTokenizer(str(file), lowercase=True)
    return Subject(
        WordPieceConfig(vocab_file=file).build(),
        lambda text: reference.encode(text, add_special_tokens=False).ids,
    )


def sentencepiece(_: Path) -> Subject:
    from sentencepiece import SentencePieceProcessor

    file = asset("t5_sentencepiece_32k.model")
    reference: Any = SentencePieceProcessor(model_file=str(file))
    return Subject(SentencePieceConfig(model_file=file).build(), reference.encode)


def words(folder: Path) -> Subject:
    """Words by the book: of the whole caption at once."""
    write_word_counts(count_words(any_text()[::3]), folder / "words.parquet")
    tokenizer = WordsConfig(word_counts=folder / "words.parquet", min_count=1).build()
    ids = {lemma: i for i, lemma in enumerate(tokenizer.lemmas)}

    def reference(text: str) -> list[int]:
        found = [word.removesuffix("'s") for word in WORD.findall(clean(text).replace("\u2019", "'"))]
        known = [tokenizer.id_of(word) for word in found]
        assert all(i is None or ids[tokenizer.lemmas[i]] == i for i in known)
        return [i for i in known if i is not None]

    return Subject(tokenizer, reference)


def asset(name: str) -> Path:
    file = (ASSETS / name).resolve()
    if not file.is_file():
        pytest.skip(f"needs {name}")
    return file


@pytest.fixture(scope="module", params=[clip_bpe, wordpiece, sentencepiece, words])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return request.param(tmp_path_factory.mktemp("words"))


def test_ids_are_those_of_the_reference(subject: Subject, texts: list[str]) -> None:
    found = subject.tokenizer.token_ids(texts)
    different = [text for text, ids in zip(texts, found, strict=True) if ids != subject.reference(text)]
    assert not different[:3]


def test_one_caption_at_a_time_gives_the_ids_of_the_batch(subject: Subject, texts: list[str]) -> None:
    some = texts[::29]
    assert [subject.tokenizer.token_ids([text])[0] for text in some] == subject.tokenizer.token_ids(some)


def test_a_text_by_itself_is_encoded_as_a_list_of_it(subject: Subject) -> None:
    tokenizer = subject.tokenizer
    for text in ("a cat", "", "x"):
        assert tokenizer.token_ids(text) == tokenizer.token_ids([text])
        alone, listed = tokenizer.encode(text), tokenizer.encode([text])
        assert all(map(torch.equal, alone, listed))


def test_every_id_is_in_range_and_every_row_is_framed(subject: Subject, texts: list[str]) -> None:
    tokenizer = subject.tokenizer
    tokens, lengths = tokenizer.encode(texts)
    assert tokens.shape == (len(texts), tokenizer.context_length)
    assert tokens.min() >= 0
    assert tokens.max() < tokenizer.vocab_size
    assert (tokens[:, 0] == tokenizer.frame[0]).all()
    assert (tokens[torch.arange(len(texts)), lengths - 1] == tokenizer.frame[1]).all()
    is_padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
    assert not tokens[is_padding].any()


def test_lone_surrogates_are_replaced(subject: Subject) -> None:
    text = "half \ud83d of\udc00one \udfffx"
    replaced = "half \ufffd of\ufffdone \ufffdx"
    assert subject.tokenizer.token_ids([text]) == [subject.reference(replaced)]


def test_frequencies_count_any_text(subject: Subject, texts: list[str]) -> None:
    rows = [ids[: subject.tokenizer.context_length - 2] for ids in map(subject.reference, texts[::7])]
    counted = count_documents(texts[::7], subject.tokenizer)
    assert counted.counts.sum() == sum(len(set(row)) for row in rows)
    assert counted.num_documents == len(rows)
