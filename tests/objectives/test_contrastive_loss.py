"""The contrastive loss, against open_clip's numbers and a loop over pairs."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.encoders.text import TextConfig
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.masking.none import NoMask
from vlp.objectives import Batch, Vocabulary
from vlp.objectives.contrastive import Contrastive, ContrastiveConfig, contrastive_loss


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
    found = contrastive_loss(*golden_embeddings(), torch.tensor(scale)).item()
    assert found == pytest.approx(loss, rel=1e-5)


def test_the_loss_is_the_mean_likelihood_of_pairs_in_rows_and_columns() -> None:
    generator = Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(7, 5, generator=generator), dim=1) for _ in range(2))
    expected = loss_by_pairs(images.double(), texts.double(), 8.0)
    assert contrastive_loss(images, texts, torch.tensor(8.0)).item() == pytest.approx(expected, rel=1e-5)


def test_images_and_captions_play_the_same_part() -> None:
    images, texts = golden_embeddings()
    scale = torch.tensor(10.0)
    swapped = contrastive_loss(texts, images, scale)
    torch.testing.assert_close(contrastive_loss(images, texts, scale), swapped)


def test_the_order_of_the_pairs_changes_nothing() -> None:
    images, texts = golden_embeddings()
    order = torch.randperm(5, generator=Generator().manual_seed(0))
    scale = torch.tensor(10.0)
    shuffled = contrastive_loss(images[order], texts[order], scale)
    torch.testing.assert_close(contrastive_loss(images, texts, scale), shuffled)


@pytest.fixture
def model() -> Contrastive:
    torch.manual_seed(0)
    encoder = VisionTransformer(ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2))
    config = ContrastiveConfig(embed_dim=8, text_encoder=TextConfig(width=16, depth=1, num_heads=2))
    return config.build(encoder, NoMask(), vocabulary=Vocabulary(11, 6))


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
        found = contrastive_loss(images, texts, scale)
    assert found.item() == pytest.approx(loss_by_pairs(images, texts, 100.0), rel=1e-5)
