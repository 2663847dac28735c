"""BERT's WordPiece (arXiv:1810.04805), with its own cleaning; runs in the Rust `tokenizers` library."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordPiece as WordPieceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from vlp.tokenizers.token_rows import TokenRows
from vlp.tokenizers.tokenizer import (
    TOKENIZERS,
    Tokenizer,
    TokenizerConfig,
    read_vocabulary,
    well_formed,
)
from vlp.tokenizers.word_memo import WordMemo

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"


@TOKENIZERS.register
@dataclass(frozen=True, kw_only=True)
class WordPieceConfig(TokenizerConfig):
    """Settings of BERT's tokenizer."""

    name: Literal["wordpiece"] = "wordpiece"
    vocab_file: Path
    """One piece per line, as BERT's vocab.txt: 30,522 for `bert-base-uncased`."""
    case: Literal["lower", "keep"] = "lower"
    """`lower` also removes accents; `keep` is for the vocabularies of cased models."""

    def build(self) -> "WordPiece":
        return WordPiece(self)


class WordPiece(Tokenizer):
    """The fewest pieces from the left, per word; a caption may spell the special tokens, as in BERT."""

    def __init__(self, config: WordPieceConfig) -> None:
        pieces = read_vocabulary(config.vocab_file).decode().splitlines()
        super().__init__(config, "wordpiece-1", config.case, pieces)
        vocab = {piece: i for i, piece in enumerate(pieces)}
        missing = [token for token in SPECIAL_TOKENS if token not in vocab]
        if missing:
            raise ValueError(f"{config.vocab_file} is not a vocabulary of BERT: it has no {missing[0]}")
        self.pieces = pieces
        self.vocab_size = len(pieces)
        self.frame = (vocab["[CLS]"], vocab["[SEP]"])
        self.special_tokens = tuple(vocab[token] for token in SPECIAL_TOKENS)
        self.rust = RustTokenizer(WordPieceModel(vocab, unk_token="[UNK]"))
        self.rust.normalizer = BertNormalizer(lowercase=config.case == "lower")
        self.rust.pre_tokenizer = BertPreTokenizer()
        self.rust.add_special_tokens(list(SPECIAL_TOKENS))
        self.memo = WordMemo(well_formed, self._word_ids)  # each step of BERT's cleaning ends at a space

    def _rows(self, captions: Sequence[str]) -> TokenRows:
        return self.memo(captions)

    def _word_ids(self, word: str) -> list[int]:
        return self.rust.encode(word, add_special_tokens=False).ids

    def _name(self, token_id: int) -> str:
        piece = self.pieces[token_id]
        return "…" + piece.removeprefix(CONTINUES) if piece.startswith(CONTINUES) else piece
