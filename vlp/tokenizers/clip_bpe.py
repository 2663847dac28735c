"""CLIP's byte-pair encoding (arXiv:2103.00020), id for id that of open_clip's `SimpleTokenizer`.

Merging runs in the Rust `tokenizers` library, once per word. Words are split into the parts that merge in
Python: Rust's regular expressions carry other Unicode tables, by which some 1,700 characters change class.
"""

import gzip
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import regex
from tokenizers.models import BPE

from vlp.tokenizers.token_rows import TokenRows
from vlp.tokenizers.tokenizer import TOKENIZERS, Tokenizer, TokenizerConfig, read_vocabulary
from vlp.tokenizers.word_memo import WordMemo

VERSION = "clip-bpe-1"  # of cleaning and splitting; part of the identity
SPECIAL_TOKENS = ("<start_of_text>", "<end_of_text>")
END_OF_WORD = "</w>"
NUM_MERGES = 48_894  # the file holds more than CLIP's vocabulary of 49,408 = 2 * 256 + merges + 2
PARTS = regex.compile(
    "|".join(SPECIAL_TOKENS) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)


def clean(caption: str) -> str:
    """Repair encoding, resolve HTML entities, collapse white space and lower the case."""
    if not (caption.isascii() and caption.isprintable() and "&" not in caption):
        import ftfy  # takes 0.3 s, and many data sets have no such caption

        caption = html.unescape(html.unescape(ftfy.fix_text(caption)))  # neither changes printable ASCII
    return " ".join(caption.split()).lower()


@lru_cache
def byte_characters() -> list[str]:
    """The character that stands for each byte in the merges file: printable bytes stand for themselves."""
    names = [chr(byte) for byte in range(256)]
    printable = [char for char in names if char.isprintable() and char != " "]
    stand_ins = (chr(code) for code in range(256, 512))
    return [char if char in printable else next(stand_ins) for char in names]


@lru_cache
def read_merges(path: Path) -> list[tuple[str, str]]:
    """Pairs of pieces to join, most frequent first."""
    lines = gzip.decompress(read_vocabulary(path)).decode().split("\n")[1 : NUM_MERGES + 1]
    pairs = [tuple(line.split()) for line in lines]
    if len(pairs) < NUM_MERGES or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{path} does not hold the {NUM_MERGES} merges of CLIP's vocabulary")
    return [(first, second) for first, second in pairs]


def open_clip_merges() -> Path:
    """The merges file within open_clip, found without its slow import."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("open_clip, whose merges file is read, is not installed")
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


def read_pieces(path: Path) -> list[str]:
    """What each id stands for, in byte characters; the last two are special."""
    characters = sorted(byte_characters())  # CLIP's order: printable bytes first
    joined = (a + b for a, b in read_merges(path))
    return [*characters, *(char + END_OF_WORD for char in characters), *joined, *SPECIAL_TOKENS]


@lru_cache
def build_model(path: Path) -> BPE:
    """The Rust model of single words in byte characters."""
    vocab = {piece: i for i, piece in enumerate(read_pieces(path))}
    return BPE(vocab, read_merges(path), end_of_word_suffix=END_OF_WORD)


class ClipBPE(Tokenizer):
    """Byte pairs of 49,408 ids; a caption may spell the special tokens, as in open_clip."""

    vocab_size = NUM_MERGES + 2 * 256 + 2
    frame = (vocab_size - 2, vocab_size - 1)
    special_tokens = frame

    def __init__(self, config: "ClipBPEConfig") -> None:
        path = config.merges
        super().__init__(config, VERSION, read_merges(path))
        self.model = build_model(path)
        self.memo = WordMemo(clean, self._word_ids)

    def _rows(self, captions: Sequence[str]) -> TokenRows:
        return self.memo(captions)

    def _word_ids(self, word: str) -> tuple[int, ...]:
        return tuple(i for part in PARTS.findall(word) for i in self._merge(part))

    def _merge(self, part: str) -> tuple[int, ...]:
        if part in SPECIAL_TOKENS:
            return (self.special_tokens[SPECIAL_TOKENS.index(part)],)
        characters = byte_characters()
        return tuple(piece.id for piece in self.model.tokenize("".join(characters[b] for b in part.encode())))

    def _name(self, token_id: int) -> str:
        piece = self.model.id_to_token(token_id)
        assert piece is not None
        if token_id in self.special_tokens:
            return piece
        text = bytes(map(byte_characters().index, piece.removesuffix(END_OF_WORD))).decode(errors="replace")
        return text if piece.endswith(END_OF_WORD) else text + "…"


@TOKENIZERS.register
@dataclass(frozen=True, kw_only=True)
class ClipBPEConfig(TokenizerConfig):
    """Settings of CLIP's tokenizer."""

    name: Literal["clip_bpe"] = "clip_bpe"

    merges_file: Path | None = None
    """Gzipped merges, one pair per line; the file that comes with open_clip by default."""

    @property
    def merges(self) -> Path:
        """The file that is read."""
        return self.merges_file or open_clip_merges()

    def build(self) -> ClipBPE:
        return ClipBPE(self)
