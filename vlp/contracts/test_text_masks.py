"""What holds for every registered text mask."""

import pytest
import torch
from torch import Generator, Tensor

from vlp.contracts.settings import TEXT_MASKS as SETTINGS
from vlp.encoders.text import TextConfig
from vlp.encoders.vit import ViTConfig
from vlp.masking.random import RandomMask
from vlp.objectives import Batch, Objective, Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.text_masking import TEXT_MASKS, TextMask, Words
from vlp.training.length import LengthConfig
from vlp.training.step import TrainingConfig, forward

B, CONTEXT, START, END, SIZE = 64, 16, 30, 31, 32


def cases() -> list[TextMask]:
    return [TEXT_MASKS[name](**given) for name in sorted(TEXT_MASKS) for given in SETTINGS.get(name, [{}])]


@pytest.fixture(params=cases(), ids=lambda mask: mask.name)
def mask(request: pytest.FixtureRequest) -> TextMask:
    return request.param


def captions(width: int = CONTEXT) -> tuple[Tensor, Tensor]:
    """Captions of none to 14 words, each word once in a caption, so that what is left can be told."""
    lengths = 2 + torch.arange(B) % (CONTEXT - 1)
    words = torch.stack([torch.randperm(START, generator=seeded(row))[:CONTEXT] for row in range(B)])
    words[:, 0] = START
    words[torch.arange(B), lengths - 1] = END
    is_padding = torch.arange(CONTEXT) >= lengths[:, None]
    return words.masked_fill(is_padding, 0)[:, :width], lengths


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def masked(mask: TextMask, tokens: Tensor, lengths: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    noise = torch.rand(len(tokens), CONTEXT, generator=seeded(seed))[:, : tokens.shape[1]]
    shares = torch.linspace(0, 1, SIZE)[tokens]
    return mask(Words(tokens, lengths, noise, shares if mask.needs_token_counts else None))


def test_what_is_left_are_words_of_the_caption_in_their_order_in_its_frame(mask: TextMask) -> None:
    tokens, lengths = captions()
    left, num_left = masked(mask, tokens, lengths)
    assert left.dtype == tokens.dtype
    for row in range(B):
        before, after = tokens[row, : lengths[row]].tolist(), left[row, : num_left[row]].tolist()
        places = [before.index(token) for token in after]
        assert places == sorted(set(places))
        assert (after[0], after[-1]) == (START, END)
        assert not left[row, num_left[row] :].any(), "padding is 0"


def test_a_caption_loses_no_more_than_it_has_to(mask: TextMask) -> None:
    tokens, lengths = captions()
    most = mask.tokens_left(CONTEXT)
    left, num_left = masked(mask, tokens, lengths)
    assert left.shape == (B, most)
    assert num_left.tolist() == lengths.clamp(max=most).tolist()


def test_captions_that_are_short_stay_as_they_are(mask: TextMask) -> None:
    tokens, lengths = captions()
    left, _ = masked(mask, tokens, lengths)
    is_short = lengths <= mask.tokens_left(CONTEXT)
    assert is_short.any()
    assert torch.equal(left[is_short], tokens[is_short, : left.shape[1]])


def test_longer_padding_changes_nothing(mask: TextMask) -> None:
    tokens, lengths = captions()
    rows = lengths <= 11
    tokens, lengths = tokens[rows], lengths[rows]
    (left, num_left), (same, same_lengths) = (masked(mask, t, lengths) for t in (tokens, tokens[:, :11]))
    width = min(left.shape[1], same.shape[1])
    assert torch.equal(num_left, same_lengths)
    assert torch.equal(left[:, :width], same[:, :width])


def test_a_caption_is_masked_alike_whatever_the_others_say(mask: TextMask) -> None:
    tokens, lengths = captions()
    left, _ = masked(mask, tokens, lengths)
    for row in (13, 14, 29):
        others = tokens.roll(1, 0)
        others[row] = tokens[row]
        changed = lengths.roll(1)
        changed[row] = lengths[row]
        assert torch.equal(masked(mask, others, changed)[0][row], left[row])


def test_a_text_mask_that_does_not_fit_the_context_is_refused(mask: TextMask) -> None:
    mask.check(CONTEXT)
    if mask.hides_any(CONTEXT):
        with pytest.raises(ValueError, match=r"num_tokens is \d+ and tokenizer.context_length \d+: nothing"):
            mask.check(mask.tokens_left(CONTEXT))


def build(mask: TextMask) -> Objective:
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2).build()
    text = TextConfig(width=16, depth=1, num_heads=2)
    config = ContrastiveConfig(embed_dim=8, text_encoder=text)
    counts = torch.arange(SIZE)
    vocabulary = Vocabulary(SIZE, CONTEXT, (START, END), token_counts=counts)
    model = config.build(encoder, RandomMask(), vocabulary=vocabulary)
    model.hide_words(mask, vocabulary)
    return model.train()


def test_a_step_reads_what_is_left_and_is_a_function_of_seed_and_step(mask: TextMask) -> None:
    tokens, lengths = captions()
    batch = Batch(torch.randn(B, 3, 16, 16, generator=seeded(1)), tokens, lengths)
    model, config = build(mask), TrainingConfig(length=LengthConfig(steps=10))
    widths: list[int] = []
    model.text_encoder.register_forward_hook(lambda _, inputs, output: widths.append(inputs[0].shape[1]))  # pyright: ignore[reportAttributeAccessIssue]
    torch.manual_seed(1)
    losses = [forward(model, batch, config, step=3, seed=1).loss for _ in range(2)]
    assert widths == [mask.tokens_left(CONTEXT)] * 2
    assert torch.equal(losses[0], losses[1])


def test_whole_captions_are_encoded_in_evaluation(mask: TextMask) -> None:
    tokens, lengths = captions()
    with torch.no_grad():
        found, expected = (build(one).encode_text(tokens, lengths) for one in (mask, TEXT_MASKS["none"]()))
    assert torch.equal(found, expected)
