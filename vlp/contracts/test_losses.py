"""What holds for every registered loss of an objective that has a choice of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator

from vlp.encoders.text import TextConfig
from vlp.encoders.vit import VisionTransformer, ViTConfig
from vlp.losses.contrastive import CONTRASTIVE_LOSSES
from vlp.losses.labels import LABEL_LOSSES
from vlp.masking.none import NoMask
from vlp.objectives import Batch, Objective, Vocabulary
from vlp.objectives.contrastive import ContrastiveConfig
from vlp.objectives.superclass import SuperClassConfig
from vlp.training.length import LengthConfig
from vlp.training.optim import AdamWConfig, build_optimizer
from vlp.training.step import TrainingConfig, forward, update

CONTRASTIVE = ContrastiveConfig(embed_dim=16, text_encoder=TextConfig(width=32, depth=1, num_heads=2))
CONFIGS: dict[str, Any] = {
    **{name: replace(CONTRASTIVE, loss=loss()) for name, loss in CONTRASTIVE_LOSSES.items()},
    **{
        name: SuperClassConfig(loss=loss(), idf="online" if loss.takes_idf else "none")
        for name, loss in LABEL_LOSSES.items()
    },
}


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Objective:
    torch.manual_seed(0)
    encoder = VisionTransformer(ViTConfig(image_size=32, patch_size=8, width=32, depth=1, num_heads=2))
    return CONFIGS[request.param].build(encoder, NoMask(), vocabulary=Vocabulary(10, 4, (8, 9))).train()


@pytest.fixture
def batch() -> Batch:
    """Six images, each with a word of its own, and one that all share."""
    images = torch.randn(6, 3, 32, 32, generator=Generator().manual_seed(0))
    tokens = torch.tensor([[8, 7, i, 9] for i in range(6)])
    return Batch(images, tokens, torch.full((6,), 4))


def test_one_batch_is_learned_by_heart(model: Objective, batch: Batch) -> None:
    optimizer = build_optimizer(model, AdamWConfig(weight_decay=0.0))
    losses = []
    for number in range(150):
        loss = forward(
            model, batch, TrainingConfig(length=LengthConfig(steps=1000)), step=number, seed=0
        ).loss
        update(model, loss, optimizer, lr=3e-3, max_norm=None)
        model.after_update()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.1 * losses[0]


def test_every_parameter_gets_a_gradient(model: Objective, batch: Batch) -> None:
    forward(model, batch, TrainingConfig(length=LengthConfig(steps=1000)), step=0, seed=0).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
