"""The attentive head is attention by its formula, and finds a patch that a mean does not show."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.metrics.attentive_probe import AttentiveHead, attentive_outcomes, fit_attentive, num_heads
from vlp.metrics.fitting import Recipe
from vlp.metrics.linear_probe import linear_probe_outcomes

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=60, lr=3e-3, weight_decay=0.05, batch_size=64)


def test_the_head_is_attention_of_one_query() -> None:
    torch.manual_seed(0)
    head = AttentiveHead(128, num_classes=3).eval()
    states = torch.randn(5, 7, 128)
    pool = head.pool
    assert pool.mlp is not None
    x = F.layer_norm(states, (128,))
    key, value = pool.kv(x).chunk(2, dim=2)
    query = pool.q(pool.latent[0, 0])
    pooled = [
        (query[part] @ key[:, :, part].mT / math.sqrt(64)).softmax(dim=1)[:, None] @ value[:, :, part]
        for part in (slice(0, 64), slice(64, 128))
    ]
    pooled = pool.proj(torch.cat(pooled, dim=2)[:, 0])
    expected = head.classifier(pooled + pool.mlp(F.layer_norm(pooled, (128,))))
    assert head(states).allclose(expected, atol=1e-5)
    assert [num_heads(width) for width in (16, 128, 768, 200)] == [1, 2, 12, 2]


def images_with_one_telling_patch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The patch that is marked has the class's sign; another has the opposite one, so the mean shows none."""
    labels = torch.randint(2, (count,), generator=generator)
    states = 0.3 * torch.randn(count, 16, 8, generator=generator)
    sign = 2.0 * labels - 1
    states[:, 3, 0], states[:, 3, 1] = 3.0, 3 * sign
    states[:, 9, 0], states[:, 9, 1] = -3.0, -3 * sign
    return states, labels


def test_it_finds_what_the_mean_of_the_patches_does_not_show() -> None:
    generator = torch.Generator().manual_seed(1)
    train, labels = images_with_one_telling_patch(256, generator)
    test, test_labels = images_with_one_telling_patch(128, generator)
    head = fit_attentive(train, labels, num_classes=2, recipe=RECIPE, device=CPU)
    found = attentive_outcomes(head, test.split(50), test_labels).metrics()
    means = (train.mean(dim=1), labels, test.mean(dim=1), test_labels)
    linear = linear_probe_outcomes(*means, penalties=(0.01,), num_classes=2).metrics()
    assert found["acc1"] > 0.95
    assert linear["acc1"] < 0.7
