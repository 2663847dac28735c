"""The contrastive loss, against open_clip's numbers and a loop over pairs."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.encoders.text import TextConfig
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.losses import in_parts
from vlp.losses.contrastive import CONTRASTIVE_LOSSES, SigmoidLoss, infonce_loss, sigmoid_loss
from vlp.masking.none import NoMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.contrastive import Contrastive, ContrastiveConfig


def golden_embeddings() -> tuple[Tensor, Tensor]:
    k = torch.arange(30, dtype=torch.float64)
    image, text = torch.sin(0.9 * k).view(5, 6), torch.cos(0.4 * k).view(5, 6)
    return F.normalize(image, dim=1).float(), F.normalize(text, dim=1).float()


def loss_by_pairs(images: Tensor, texts: Tensor, scale: float) -> float:
    """Mean negative log-likelihood of each pair among its row and among its column."""
    B = len(images)
    S = [[scale * float(images[i] @ texts[j]) for j in range(B)] for i in range(B)]
    rows = [math.log(sum(math.exp(S[i][j] - S[i][i]) for j in range(B))) for i in range(B)]
    columns = [math.log(sum(math.exp(S[j][i] - S[i][i]) for j in range(B))) for i in range(B)]
    return (sum(rows) + sum(columns)) / (2 * B)


@pytest.mark.parametrize(("scale", "loss"), [(1 / 0.07, 7.451885223388672), (100.0, 51.1560173034668)])
def test_the_loss_is_that_of_open_clip(scale: float, loss: float) -> None:
    found = infonce_loss(*golden_embeddings(), torch.tensor(scale)).item()
    assert found == pytest.approx(loss, rel=1e-5)


def test_the_loss_is_the_mean_likelihood_of_pairs_in_rows_and_columns() -> None:
    generator = Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(7, 5, generator=generator), dim=1) for _ in range(2))
    expected = loss_by_pairs(images.double(), texts.double(), 8.0)
    assert infonce_loss(images, texts, torch.tensor(8.0)).item() == pytest.approx(expected, rel=1e-5)


def test_images_and_captions_play_the_same_part() -> None:
    images, texts = golden_embeddings()
    scale = torch.tensor(10.0)
    swapped = infonce_loss(texts, images, scale)
    torch.testing.assert_close(infonce_loss(images, texts, scale), swapped)


def test_the_order_of_the_pairs_changes_nothing() -> None:
    images, texts = golden_embeddings()
    order = torch.randperm(5, generator=Generator().manual_seed(0))
    scale = torch.tensor(10.0)
    shuffled = infonce_loss(images[order], texts[order], scale)
    torch.testing.assert_close(infonce_loss(images, texts, scale), shuffled)


TINY_TEXT = TextConfig(width=16, depth=1, num_heads=2)


def build_model(config: ContrastiveConfig) -> Contrastive:
    torch.manual_seed(0)
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2))
    return config.build(encoder, NoMask(), vocabulary=Vocabulary(11, 6))


@pytest.fixture
def model() -> Contrastive:
    return build_model(ContrastiveConfig(embed_dim=8, text_encoder=TINY_TEXT))


@pytest.mark.parametrize(("log_scale", "scale"), [(-3.0, 1.0), (9.0, 100.0), (2.0, math.exp(2.0))])
def test_the_logit_scale_stays_between_1_and_its_maximum(
    model: Contrastive, log_scale: float, scale: float
) -> None:
    with torch.no_grad():
        model.log_logit_scale.fill_(log_scale)
    model.after_update()
    assert model.log_logit_scale.exp().item() == pytest.approx(scale, rel=1e-5)


def test_the_loss_of_a_batch_is_the_loss_of_its_embeddings(model: Contrastive) -> None:
    generator = Generator().manual_seed(0)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    tokens = torch.randint(1, 11, (4, 5), generator=generator)
    lengths = torch.tensor([5, 3, 4, 2])
    step = model(Batch(images, tokens, lengths), progress=0.0, generator=generator)
    with torch.no_grad():
        image, text = model.encode_image(images), model.encode_text(tokens, lengths)
    for embeddings in (image, text):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    assert step.loss.item() == pytest.approx(loss_by_pairs(image, text, 1 / 0.07), rel=1e-4)
    assert step.metrics["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_bf16_changes_the_loss_by_no_more_than_its_embeddings_do(model: Contrastive) -> None:
    """At the highest logit scale, logits in bf16 would be off by up to 0.25."""
    generator = Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(64, 8, generator=generator), dim=1) for _ in range(2))
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = infonce_loss(images, texts, scale)
    assert found.item() == pytest.approx(loss_by_pairs(images, texts, 100.0), rel=1e-5)


def sigmoid_loss_by_pairs(images: Tensor, texts: Tensor, scale: float, bias: float) -> float:
    """Algorithm 1 of SigLIP, pair by pair."""
    B = len(images)
    total = 0.0
    for i in range(B):
        for j in range(B):
            logit = scale * float(images[i] @ texts[j]) + bias
            sign = 1 if i == j else -1
            total += math.log(1 / (1 + math.exp(-sign * logit)))
    return -total / B


@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (3.0, 0.5)])
def test_the_sigmoid_loss_is_the_likelihood_of_each_pair_by_itself(scale: float, bias: float) -> None:
    generator = Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(7, 5, generator=generator), dim=1) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = sigmoid_loss(images, texts, torch.tensor(scale), torch.tensor(bias)).item()
    expected = sigmoid_loss_by_pairs(images.double(), texts.double(), scale, bias)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_model_with_the_sigmoid_loss_starts_as_siglip_and_trains_its_bias() -> None:
    generator = Generator().manual_seed(0)
    model = build_model(ContrastiveConfig(embed_dim=8, text_encoder=TINY_TEXT, loss=SigmoidLoss()))
    images, tokens = (
        torch.randn(4, 3, 16, 16, generator=generator),
        torch.randint(1, 11, (4, 5), generator=generator),
    )
    lengths = torch.tensor([5, 3, 4, 2])
    step = model(Batch(images, tokens, lengths), progress=0.0, generator=generator)
    with torch.no_grad():
        image, text = model.encode_image(images), model.encode_text(tokens, lengths)
    assert step.loss.item() == pytest.approx(sigmoid_loss_by_pairs(image, text, 10.0, -10.0), rel=1e-4)
    assert step.metrics["logit_bias"].item() == -10
    step.loss.backward()
    assert model.logit_bias is not None
    assert model.logit_bias.grad is not None
    assert model.logit_bias.grad.abs() > 0


def dense_infonce(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits, targets = scale * images @ texts.T, torch.arange(len(images))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def dense_sigmoid(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = scale * images @ texts.T + bias
    return -F.logsigmoid((2 * torch.eye(len(images)) - 1) * logits).sum(dim=1).mean()


@pytest.mark.parametrize("rows_of_a_part", [1, 7, 64])
@pytest.mark.parametrize(("name", "dense"), [("infonce", dense_infonce), ("sigmoid", dense_sigmoid)])
def test_a_loss_in_parts_has_the_value_and_the_gradients_of_the_whole_matrix(
    name: str, dense: Any, rows_of_a_part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_parts, "MAX_PRODUCTS", rows_of_a_part * 64)
    generator = Generator().manual_seed(0)
    leaves = [F.normalize(torch.randn(64, 8, generator=generator), dim=1) for _ in range(2)]
    leaves = [x.requires_grad_() for x in (*leaves, torch.tensor(14.0), torch.tensor(-3.0))]
    found, expected = CONTRASTIVE_LOSSES[name]()(*leaves), dense(*leaves)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    both = [torch.autograd.grad(loss, leaves, allow_unused=True) for loss in (found, expected)]
    for mine, others in zip(*both, strict=True):
        assert (mine is None) == (others is None)
        if mine is not None:
            torch.testing.assert_close(mine, others, atol=1e-6, rtol=1e-6)


def test_the_memory_of_a_loss_in_parts_does_not_grow_with_the_square_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is kept for the backward pass."""
    monkeypatch.setattr(in_parts, "MAX_PRODUCTS", 2**12)

    def kept(size: int) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        images, texts = (torch.randn(size, 8, requires_grad=True) for _ in range(2))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = infonce_loss(images, texts, torch.tensor(2.0, requires_grad=True))
        assert loss.isfinite()
        return sum(sizes.values())

    assert kept(2048) < 2.2 * kept(1024)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"initial_temperature": 0.0}, r"initial_temperature must be in \(0, 1\], got 0.0"),
        ({"max_logit_scale": 0.5}, "max_logit_scale must be at least 1, got 0.5"),
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, float], message: str) -> None:
    for cls in CONTRASTIVE_LOSSES.values():
        with pytest.raises(ValueError, match=message):
            cls(**wrong)
