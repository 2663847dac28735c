"""SuperClass, against the released loss (arXiv:2411.03313) and a dense loop over classes."""

import math

import pytest
import torch
from torch import Generator, Tensor

from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.losses.labels import Labels, softmax_loss
from vlp.masking import MaskStrategy, Slots
from vlp.masking.cluster import ClusterMask
from vlp.masking.none import NoMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.superclass import (
    SuperClass,
    SuperClassConfig,
    caption_labels,
)

NONE = torch.tensor([], dtype=torch.int64)
GOLDEN_TOKENS = (
    torch.tensor([[6, 1, 2, 7, 0], [6, 2, 2, 7, 0], [6, 3, 1, 4, 7]]),
    torch.tensor([[6, 5, 7, 0, 0], [6, 1, 7, 0, 0], [6, 2, 3, 7, 0]]),
)
GOLDEN_IDF = (
    [0.28768, 0.28768, 0.28768, 0.69315, 0.69315, 1.38629, 0, 0],
    [0.15415, 0.55962, 0.55962, 0.84730, 1.25276, 1.25276, 0, 0],
)
GOLDEN_LOSS = (2.0129735469818115, 2.4443070888519287)


def golden_logits() -> Tensor:
    return torch.sin(0.7 * torch.arange(24, dtype=torch.float64)).view(3, 8).float()


def golden_labels(step: int) -> Labels:
    """The released loss keeps special tokens, and padding as the token 0."""
    tokens = GOLDEN_TOKENS[step]
    return caption_labels(tokens, torch.full((3,), 5), special_tokens=NONE)


def build(
    idf: str, *, vocabulary: Vocabulary | None = None, mask: MaskStrategy | None = None, seed: int = 0
) -> SuperClass:
    torch.manual_seed(seed)
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=4, width=16, depth=1, num_heads=2))
    config = SuperClassConfig(idf=idf)  # pyright: ignore[reportArgumentType]
    return config.build(encoder, mask or NoMask(), vocabulary=vocabulary or Vocabulary(8, 5))


def batch(tokens: Tensor, lengths: Tensor | None = None) -> Batch:
    images = torch.randn(len(tokens), 3, 16, 16, generator=Generator().manual_seed(9))
    return Batch(images, tokens, torch.full((len(tokens),), tokens.shape[1]) if lengths is None else lengths)


def run(model: SuperClass, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
    return model(batch(tokens, lengths), progress=0.0, generator=Generator().manual_seed(0)).loss


def dense_loss(logits: Tensor, captions: list[set[int]], idf: Tensor) -> Tensor:
    """The formula of the paper, caption by caption and class by class."""
    losses = []
    for row, words in zip(logits, captions, strict=True):
        y = torch.tensor([float(idf[c]) if c in words else 0.0 for c in range(len(row))])
        y = y / max(float(y.sum()), 1e-12)
        losses.append(-(y * row.log_softmax(dim=0)).sum())
    return torch.stack(losses).mean()


def test_two_steps_of_online_idf_are_those_of_the_released_loss() -> None:
    model = build("online").train()
    for step in (0, 1):
        run(model, GOLDEN_TOKENS[step])
        assert model.idf().tolist() == pytest.approx(GOLDEN_IDF[step], abs=1e-5)
        loss = softmax_loss(golden_logits(), golden_labels(step), model.idf())
        assert loss.item() == pytest.approx(GOLDEN_LOSS[step], rel=1e-5)
        if step == 0:
            assert (model.document_frequency / 3).tolist() == pytest.approx(
                [2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 1, 1]
            )
    assert model.num_documents.item() / 3 == 2


def test_the_softmax_without_idf_is_that_of_the_released_loss() -> None:
    loss = softmax_loss(golden_logits(), golden_labels(0), build("none").idf())
    assert loss.item() == pytest.approx(2.4445247650146484, rel=1e-5)


def test_counts_over_ragged_batches_are_those_of_all_captions_at_once() -> None:
    model = build("online").train()
    tokens = torch.randint(0, 8, (11, 5), generator=Generator().manual_seed(0))
    for part in tokens.split([4, 1, 6]):
        run(model, part)
    captions = [set(row) for row in tokens.tolist()]
    df = [sum(token in caption for caption in captions) for token in range(8)]
    assert model.document_frequency.tolist() == df
    assert model.idf().tolist() == pytest.approx([math.log(12 / (n + 1)) for n in df], abs=1e-6)


def test_the_loss_and_its_gradient_are_those_of_the_dense_formula() -> None:
    generator = Generator().manual_seed(0)
    logits = torch.randn(16, 40, generator=generator, requires_grad=True)
    tokens = torch.randint(0, 40, (16, 9), generator=generator)
    lengths = torch.randint(1, 10, (16,), generator=generator)
    idf = torch.rand(40, generator=generator)
    idf[:10] = 0  # words without weight
    special = torch.tensor([38, 39])
    rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
    captions = [set(row[:length]) - {38, 39} for row, length in rows]
    labels = caption_labels(tokens, lengths, special_tokens=special)
    found, expected = softmax_loss(logits, labels, idf), dense_loss(logits, captions, idf)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


def test_the_gradient_of_the_logits_is_softmax_minus_target() -> None:
    logits = golden_logits().requires_grad_()
    idf = torch.tensor(GOLDEN_IDF[0])
    (gradient,) = torch.autograd.grad(softmax_loss(logits, golden_labels(0), idf), logits)
    target = torch.zeros(3, 8)
    for row, words in enumerate(GOLDEN_TOKENS[0].tolist()):
        target[row, words] = idf[words]
    target /= target.sum(dim=1, keepdim=True)
    torch.testing.assert_close(gradient, (logits.softmax(dim=1) - target) / 3)


def test_duplicates_and_the_order_of_words_change_nothing() -> None:
    generator = Generator().manual_seed(0)
    logits, idf = torch.randn(1, 8, generator=generator), torch.rand(8, generator=generator)
    losses = [
        softmax_loss(
            logits,
            caption_labels(words[None], torch.tensor([len(words)]), special_tokens=NONE),
            idf,
        ).item()
        for words in map(torch.tensor, ([1, 5, 3], [5, 1, 3], [3, 3, 5, 1, 1, 1], [1, 3, 5, 5]))
    ]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


def test_a_caption_without_weight_costs_nothing_and_moves_nothing() -> None:
    logits = torch.randn(3, 8, generator=Generator().manual_seed(0), requires_grad=True)
    idf = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])
    tokens = torch.tensor([[1, 2], [4, 5], [6, 6]])  # no weight in the second, special tokens in the third
    labels = caption_labels(tokens, torch.tensor([2, 2, 2]), special_tokens=torch.tensor([6]))
    loss = softmax_loss(logits, labels, idf)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = -logits[0].log_softmax(dim=0)[[1, 2]].mean() / 3
    torch.testing.assert_close(loss, expected)
    assert gradient[1:].abs().max() == 0
    assert gradient[0].abs().max() > 0


def test_labels_are_the_words_of_a_caption_and_the_word_with_id_0_among_them() -> None:
    tokens = torch.tensor([[6, 0, 3, 0, 7], [6, 4, 7, 0, 0], [6, 7, 0, 0, 0]])
    ids, is_label = caption_labels(tokens, torch.tensor([5, 3, 2]), special_tokens=torch.tensor([6, 7]))
    words = [sorted(row[keep].tolist()) for row, keep in zip(ids, is_label, strict=True)]
    assert words == [[0, 3], [4], []]


def test_only_training_counts_documents() -> None:
    model = build("online").eval()
    run(model, GOLDEN_TOKENS[0])
    assert model.num_documents.item() == model.document_frequency.sum().item() == 0


def test_a_restored_model_goes_on_with_the_same_weights() -> None:
    undisturbed, first, second = (build("online", seed=seed).train() for seed in (0, 0, 1))
    for tokens in GOLDEN_TOKENS:
        run(undisturbed, tokens)
    run(first, GOLDEN_TOKENS[0])
    second.load_state_dict(first.state_dict())
    loss = run(second, GOLDEN_TOKENS[1])
    assert torch.equal(second.idf(), undisturbed.idf())
    reference = build("online", seed=0).train()
    run(reference, GOLDEN_TOKENS[0])
    assert loss.item() == run(reference, GOLDEN_TOKENS[1]).item()


def test_a_table_of_document_frequencies_is_used_offline_and_never_changed() -> None:
    table = torch.tensor([5, 0, 10, 1, 2, 3, 10, 10])
    model = build("offline", vocabulary=Vocabulary(8, 5, (6, 7), table, 10)).train()
    run(model, GOLDEN_TOKENS[0])
    assert model.idf().tolist() == pytest.approx([math.log(11 / (n + 1)) for n in table.tolist()], abs=1e-6)


def test_a_table_that_is_given_but_not_used_does_not_change_online_counts() -> None:
    table = torch.tensor([5, 0, 10, 1, 2, 3, 10, 10])
    with_table = build("online", vocabulary=Vocabulary(8, 5, (), table, 10)).train()
    run(with_table, GOLDEN_TOKENS[0])
    assert with_table.idf().tolist() == pytest.approx(GOLDEN_IDF[0], abs=1e-5)


def test_offline_idf_without_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="docfreq"):
        build("offline")


@torch.no_grad()
def test_the_classifier_reads_the_mean_of_the_visible_patches() -> None:
    model = build("none", mask=ClusterMask(threshold=0.0, anchor_ratio=0.1)).eval()
    images = batch(GOLDEN_TOKENS[0]).images
    slots = model.choose_visible(images, progress=0.0, generator=Generator().manual_seed(0))
    assert slots.is_padding is not None
    assert slots.is_padding.any()
    losses = []
    parts = (images, slots.keep_indices, slots.is_padding, GOLDEN_TOKENS[0])
    for image, keep, padding, tokens in zip(*parts, strict=True):
        states = model.image_encoder(image[None], Slots(keep[~padding][None], None))
        logits = model.classifier(model.norm(states[:, 1:].mean(dim=1)))
        losses.append(dense_loss(logits, [set(tokens.tolist())], torch.ones(8)))
    torch.testing.assert_close(run(model, GOLDEN_TOKENS[0]), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    whole = model.norm(model.image_encoder(images)[:, 1:].mean(dim=1))
    torch.testing.assert_close(model.features(images), whole)


def test_the_loss_is_computed_in_float32_under_autocast() -> None:
    generator = Generator().manual_seed(0)
    logits = 30 * torch.randn(4, 50, generator=generator)
    tokens = torch.randint(0, 50, (4, 6), generator=generator)
    labels = caption_labels(tokens, torch.full((4,), 6), special_tokens=NONE)
    idf = torch.rand(50, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = softmax_loss(logits, labels, idf)
    expected = dense_loss(logits.double(), [set(row) for row in tokens.tolist()], idf)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_kept_special_tokens_are_labels_as_released() -> None:
    """Start, end and the padding up to the context length, which is the id 0, however wide the batch is."""
    torch.manual_seed(0)
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=4, width=16, depth=1, num_heads=2))
    model = SuperClassConfig(special_tokens="keep").build(
        encoder, NoMask(), vocabulary=Vocabulary(8, 5, (6, 7))
    )
    tokens, lengths = (
        torch.tensor([[6, 1, 2, 7, 0], [6, 7, 0, 0, 0], [6, 3, 1, 4, 7]]),
        torch.tensor([4, 2, 5]),
    )
    for width in (5, 7):
        rows = torch.nn.functional.pad(tokens, (0, width - 5))
        ids, is_label = model.labels(batch(rows, lengths))
        words = [sorted(row[keep].tolist()) for row, keep in zip(ids, is_label, strict=True)]
        assert words == [[0, 1, 2, 6, 7], [0, 6, 7], [1, 3, 4, 6, 7]]
