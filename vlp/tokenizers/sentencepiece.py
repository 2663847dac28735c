"""SentencePiece (arXiv:1808.06226), the tokenizer of T5, LLaMA and SigLIP."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlp.tokenizers.token_rows import TokenRows
from vlp.tokenizers.tokenizer import (
    TOKENIZERS,
    Tokenizer,
    TokenizerConfig,
    read_vocabulary,
    well_formed,
)

STARTS_WORD = "\N{LOWER ONE EIGHTH BLOCK}"


@TOKENIZERS.register
@dataclass(frozen=True, kw_only=True)
class SentencePieceConfig(TokenizerConfig):
    """Settings of a SentencePiece tokenizer; cleaning and case are part of its model."""

    name: Literal["sentencepiece"] = "sentencepiece"
    model_file: Path
    """A trained `.model` file, such as T5's or LLaMA's of 32,000 pieces."""

    def build(self) -> "SentencePiece":
        return SentencePiece(self)


class SentencePiece(Tokenizer):
    """Pieces of a trained model; where it has no start- or end-of-text, an id is added after its own."""

    def __init__(self, config: SentencePieceConfig) -> None:
        model = read_vocabulary(config.model_file)
        from sentencepiece import SentencePieceProcessor

        super().__init__(config, "sentencepiece-1", model)
        try:
            self.processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"{config.model_file} is not a SentencePiece model") from error
        num_pieces = self.processor.vocab_size()
        added = iter(range(num_pieces, num_pieces + 2))
        start, end = (
            i if i >= 0 else next(added) for i in (self.processor.bos_id(), self.processor.eos_id())
        )
        self.frame = (start, end)
        self.vocab_size = max(num_pieces, start + 1, end + 1)
        own = {i for i in range(num_pieces) if self.processor.is_control(i) or self.processor.is_unknown(i)}
        self.special_tokens = tuple(sorted(own | set(self.frame)))

    def _rows(self, captions: Sequence[str]) -> TokenRows:
        texts = [well_formed(caption) for caption in captions]
        return TokenRows.of(self.processor.encode(texts, num_threads=1))

    def _name(self, token_id: int) -> str:
        if token_id >= self.processor.vocab_size():
            return "<s>" if token_id == self.frame[0] else "</s>"
        piece = self.processor.id_to_piece(token_id)
        if token_id in self.special_tokens or piece == STARTS_WORD:
            return piece
        return piece[1:] if piece.startswith(STARTS_WORD) else "…" + piece
