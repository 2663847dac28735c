"""The text transformer reads a caption up to its last token, and nothing after it."""

import open_clip.transformer as open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.encoders.text import TextConfig, TextTransformer

VOCABULARY, CONTEXT = 99, 16
# ours -> open_clip's, within a block
BLOCK_NAMES = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.proj": "attn.out_proj",
    "attn.qkv.": "attn.in_proj_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


@pytest.fixture
def encoder() -> TextTransformer:
    torch.manual_seed(0)
    config = TextConfig(width=32, depth=3, num_heads=4)
    return TextTransformer(config, vocab_size=VOCABULARY, context_length=CONTEXT).eval()


@pytest.fixture
def captions() -> tuple[Tensor, Tensor]:
    """Five captions of 2 to 9 tokens; end-of-text is the greatest id, as open_clip's pooling needs."""
    lengths = torch.tensor([9, 2, 5, 3, 9])
    tokens = torch.randint(1, VOCABULARY - 1, (5, 9), generator=Generator().manual_seed(1))
    tokens[torch.arange(9) >= lengths[:, None]] = 0
    tokens[torch.arange(5), lengths - 1] = VOCABULARY - 1
    return tokens, lengths


@torch.no_grad()
def test_longer_padding_changes_nothing(encoder: TextTransformer, captions: tuple[Tensor, Tensor]) -> None:
    tokens, lengths = captions
    expected = encoder(tokens, lengths)
    for extra in (1, CONTEXT - 9):
        torch.testing.assert_close(encoder(F.pad(tokens, (0, extra)), lengths), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_caption_alone_gives_its_row_of_the_batch(
    encoder: TextTransformer, captions: tuple[Tensor, Tensor]
) -> None:
    tokens, lengths = captions
    states = encoder(tokens, lengths)
    for row, length, state in zip(tokens, lengths, states, strict=True):
        torch.testing.assert_close(encoder(row[None, :length], length[None])[0], state, atol=1e-5, rtol=0)


@torch.no_grad()
def test_every_token_of_a_caption_matters_and_none_after_it(
    encoder: TextTransformer, captions: tuple[Tensor, Tensor]
) -> None:
    tokens, lengths = captions
    expected = encoder(tokens, lengths)
    for position in range(tokens.shape[1]):
        other = tokens.clone()
        other[:, position] = (other[:, position] + 7) % VOCABULARY
        changed = (encoder(other, lengths) - expected).abs().amax(dim=1) > 1e-6
        assert changed.tolist() == (position < lengths).tolist()


@torch.no_grad()
def test_the_states_are_those_of_open_clips_text_tower(
    encoder: TextTransformer, captions: tuple[Tensor, Tensor]
) -> None:
    tower = open_clip.TextTransformer(
        context_length=CONTEXT, vocab_size=VOCABULARY, width=32, heads=4, layers=3, output_dim=32
    ).eval()
    weights = {
        "token_embedding.weight": encoder.token_embed.weight,
        "positional_embedding": encoder.positions,
        "ln_final.weight": encoder.norm.weight,
        "ln_final.bias": encoder.norm.bias,
        "text_projection": torch.eye(32),
    }
    for name, value in encoder.blocks.state_dict().items():
        for ours, theirs in BLOCK_NAMES.items():
            name = name.replace(ours, theirs)
        weights[f"transformer.resblocks.{name}"] = value
    missing = tower.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"attn_mask"}
    tokens, lengths = captions
    padded = F.pad(tokens, (0, CONTEXT - tokens.shape[1]))
    torch.testing.assert_close(encoder(tokens, lengths), tower(padded), atol=1e-5, rtol=1e-4)
