"""Draw how often each word of some captions stays: `python docs/text_mask_picture.py`, for docs/masks.md."""

from pathlib import Path

import torch

from vlp.pictures.captions import kept_words
from vlp.text_masking import TEXT_MASKS, TextMask, Words
from vlp.tiny_world import TinyWorldConfig
from vlp.tiny_world.captions import draw_captions
from vlp.tiny_world.corpus import draw_split
from vlp.tokenizers import Tokenizer
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import count_documents

IMAGE = Path(__file__).parent / "images" / "text_masks.png"
CAPTIONS = (
    "a photograph of one small red square above the large blue circle",
    "three green triangles and two yellow stars on grass by the sea",
)
DRAWS = 2000


def main() -> None:
    """Write the picture; words are counted in the captions of the sample corpus."""
    tokenizer = ClipBPEConfig().build()
    scenes = draw_split(TinyWorldConfig(num_train=2000), "train")
    known = [caption for scene, rng in scenes for caption in draw_captions(scene, rng, count=1)]
    counts = torch.from_numpy(count_documents([*known, *CAPTIONS], tokenizer).occurrences)
    # All words of so small a vocabulary are frequent.
    given = {"frequency": {"threshold": 1e-3}}
    masks = {name: mask(**given.get(name, {})) for name, mask in TEXT_MASKS.items() if name != "none"}
    kept_words(
        {
            f"{name} {place + 1}": kept(mask, caption, tokenizer, counts / counts.sum())
            for place, caption in enumerate(CAPTIONS)
            for name, mask in masks.items()
        }
    ).save(IMAGE, optimize=True)


def kept(mask: TextMask, caption: str, tokenizer: Tokenizer, shares: torch.Tensor) -> list[tuple[str, float]]:
    """Each word of a caption, and how often it stays."""
    tokens, lengths = (x.repeat(DRAWS, *[1] * (x.ndim - 1)) for x in tokenizer.encode(caption))
    noise = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0))
    left, _ = mask(Words(tokens, lengths, noise, shares[tokens]))
    ids = tokens[0, 1:-1].tolist()
    assert len(set(ids)) == len(ids), "where a word stays twice cannot be told"
    return [(tokenizer.token_of(one), (left == one).sum().item() / DRAWS) for one in ids]


if __name__ == "__main__":
    main()
