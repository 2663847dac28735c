"""CLIP's tokenizer: id for id what open_clip's gives."""

import pickle
import random

import ftfy
import pyarrow.parquet as pq
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from tests.paths import SHARED_DATA
from vlp.tokenizers import TOKENIZERS
from vlp.tokenizers.clip_bpe import ClipBPEConfig, clean, open_clip_merges

FLICKR8K = SHARED_DATA / "flickr8k"

CAPTIONS = [
    "",
    "   \t\n ",
    "a photo of a cat",
    "It's we'LL they'd I'M you've 'tis 'S",
    "don\u2019t \u201cquote\u201d me \u2013 or\u2026 do",
    "bread &amp; butter &amp;amp; jam &lt;b&gt; &eacute;t&eacute; &#128512; &nbsp;end",
    "<p>html &amp; tags</p>",
    "first line\nsecond line\r\nthird\u2028fourth\x0bfifth\x1csixth\x85seventh",
    "bell\x07 null\x00 escape \x1b[31mred\x1b[0m delete\x7f zero\u200bwidth\ufeff",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m stra\u00dfe \u0130stanbul \ufb01ne",
    "mojibake: voil\u00c3\u00a0 \u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d",
    "日本語 emoji 😀 tokens 👩‍👩‍👧 🇫🇷",
    "العربية עברית ไทย हिन्दी русский Ελληνικά",
    "ＬＯＵＤ　ＮＯＩＳＥＳ ｶﾀｶﾅ",  # noqa: RUF001
    "3.14159 2024-01-01 $1,000.00 50% #tag @user http://a.b/c?d=e&f=g",
    "!!! ... ??? --- ___ ~~~ ^^^ '''",
    "the \u017ftrange 's and '\u017f and kelvin \u212a and iota \u0345",
    "lone surrogate \ud83d here",
    "<start_of_text>spelt!<end_of_text> <END_OF_TEXT> x",
    "supercalifragilisticexpialidocious " * 30,
    "x" * 5000,
]


@pytest.fixture(scope="module")
def tokenizer():
    return TOKENIZERS["clip_bpe"]().build()


@pytest.fixture(scope="module")
def open_clip():
    return SimpleTokenizer()


def assert_same_tokens(tokenizer, open_clip, captions):
    tokens, lengths = tokenizer.encode(captions)
    expected = open_clip(captions)
    longest = tokens.shape[1]
    assert torch.equal(tokens, expected[:, :longest])
    assert not expected[:, longest:].any()
    # Not the count of ids above 0: id 0 is also an exclamation mark within a word.
    is_end = (expected == 49407).long()
    assert torch.equal(lengths, expected.shape[1] - is_end.flip(1).argmax(dim=1))


@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407]),
        ("", [49406, 49407]),
        ("日本語 emoji 😀 tokens", [49406, 39121, 44353, 34002, 508, 16327, 7334, 23562, 49407]),
    ],
)
def test_known_ids(tokenizer, caption, ids):
    tokens, lengths = tokenizer.encode([caption])
    assert tokens.tolist() == [ids]
    assert lengths.tolist() == [len(ids)]


def test_known_ids_of_repaired_text(tokenizer):
    tokens, lengths = tokenizer.encode(['A  DIAGRAM, of &amp; the \ufb01rst "na\u00efve" caf\u00e9!!'])
    expected = [49406, 320, 22697, 267, 539, 261, 518, 874, 257, 1097, 35689, 563, 257, 15304]
    assert tokens[0, :14].tolist() == expected
    assert lengths.item() == 16


def test_long_caption_is_cut_and_still_ends(tokenizer):
    tokens, lengths = tokenizer.encode(["supercalifragilisticexpialidocious " * 30])
    assert tokens.shape == (1, 77)
    assert tokens[0, :10].tolist() == [49406, 1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466]
    assert tokens[0, -1] == 49407
    assert lengths.item() == 77


def test_equals_open_clip_on_odd_captions(tokenizer, open_clip):
    assert_same_tokens(tokenizer, open_clip, CAPTIONS)
    assert tokenizer.token_ids(CAPTIONS) == [open_clip.encode(caption) for caption in CAPTIONS]


def test_equals_open_clip_on_random_characters(tokenizer, open_clip):
    """Characters of every script, with HTML's and English contractions' own strewn in."""
    draw = random.Random(0)
    scripts = [
        range(0x20, 0x7F),
        range(0x180),
        range(0x300, 0x3000),
        range(0x3000, 0xD800),
        range(0x1D000, 0x1FB00),
    ]
    captions = [
        "".join(
            draw.choice([*"&;<' aS"] + [chr(draw.choice(script)) for script in scripts]) for _ in range(20)
        )
        for _ in range(400)
    ]
    assert_same_tokens(tokenizer, open_clip, captions)


def test_equals_open_clip_on_real_captions(tokenizer, open_clip):
    files = [FLICKR8K / f"{split}.parquet" for split in ("dev", "train")]
    if not all(file.exists() for file in files):
        pytest.skip("Flickr8k is not here")
    rows = [
        row for file in files for row in pq.read_table(file, columns=["captions"])["captions"].to_pylist()
    ]
    captions = [caption for row in rows for caption in row]
    assert_same_tokens(tokenizer, open_clip, captions[::7])


def test_repair_leaves_printable_ascii_alone():
    """So cleaning may skip it: every pair of printable ASCII characters without an ampersand."""
    printable = [chr(code) for code in range(0x20, 0x7F) if chr(code) != "&"]
    text = "".join(a + b for a in printable for b in printable)
    assert ftfy.fix_text(text) == text
    assert clean(text) == " ".join(text.split()).lower()


def test_token_ids_are_neither_framed_nor_cut(tokenizer):
    short, long = tokenizer.token_ids(["a photo of a cat", "cat " * 500])
    assert short == [320, 1125, 539, 320, 2368]
    assert long == [2368] * 500


def test_shorter_context_keeps_the_frame():
    tokens, lengths = ClipBPEConfig(context_length=4).build().encode(["a photo of a cat", "cat"])
    assert tokens.tolist() == [[49406, 320, 1125, 49407], [49406, 2368, 49407, 0]]
    assert lengths.tolist() == [4, 3]


def test_no_captions_give_no_rows(tokenizer):
    tokens, lengths = tokenizer.encode([])
    assert tokens.shape == (0, 0)
    assert lengths.shape == (0,)


def test_identity_is_of_ids_not_of_settings(tokenizer, tmp_path):
    merges = tmp_path / "merges.txt.gz"
    merges.write_bytes(open_clip_merges().read_bytes())
    assert ClipBPEConfig(merges_file=merges).build().identity == tokenizer.identity


@pytest.mark.parametrize("changed", [{"context_length": 32}, {"stop_words": "drop"}])
def test_identity_is_of_what_training_sees(tokenizer, changed):
    assert ClipBPEConfig(**changed).build().identity != tokenizer.identity


def test_pickles_small_and_whole(tokenizer):
    data = pickle.dumps(tokenizer)
    assert len(data) < 1000
    assert pickle.loads(data).token_ids(CAPTIONS) == tokenizer.token_ids(CAPTIONS)


def test_tokens_are_readable(tokenizer):
    ids = tokenizer.token_ids(["a photo supercali"])[0]
    assert [tokenizer.token_of(i) for i in ids] == ["a", "photo", "super…", "cali"]
    assert [tokenizer.token_of(i) for i in tokenizer.special_tokens] == ["<start_of_text>", "<end_of_text>"]
    for token_id in (-1, 49408):
        with pytest.raises(ValueError, match=r"0\.\.49407"):
            tokenizer.token_of(token_id)


def test_vocabulary_is_clips(tokenizer, open_clip):
    assert tokenizer.vocab_size == open_clip.vocab_size == 49408
    assert tokenizer.special_tokens == (49406, 49407)
