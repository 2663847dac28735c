"""Attentive probe: a trained query pools frozen patch states (arXiv:2202.03026, arXiv:2404.08471)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlp.metrics.fitting import Recipe, fit
from vlp.metrics.outcomes import ClassRanks
from vlp.metrics.ranks import class_outcomes

HEAD_WIDTH = 64


class AttentiveHead(nn.Module):
    """Cross-attention of one trained query with the patch states, an MLP, and a linear classifier."""

    def __init__(self, width: int, *, num_classes: int) -> None:
        from timm.layers.attention_pool import AttentionPoolLatent

        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)  # encoders' scales are their own
        self.pool = AttentionPoolLatent(width, num_heads=num_heads(width), norm_layer=nn.LayerNorm)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, states: Tensor) -> Tensor:
        """Logits: (B, N, D) -> (B, K)."""
        return self.classifier(self.pool(self.norm(states)))


def num_heads(width: int) -> int:
    """Heads of 64 numbers, or the next number of heads that share the width evenly."""
    return next(heads for heads in range(max(1, width // HEAD_WIDTH), 0, -1) if width % heads == 0)


def fit_attentive(
    states: Tensor, labels: Tensor, *, num_classes: int, recipe: Recipe, device: torch.device
) -> AttentiveHead:
    """A head that learned the classes of images.

    Args:
        states: (B, N, D), the images' patch states.
        labels: (B,) int64 in 0..K-1.
        num_classes: K.
        device: on which the head learns and stays.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = AttentiveHead(states.shape[2], num_classes=num_classes).to(device)

    def loss(positions: Tensor) -> Tensor:
        return F.cross_entropy(head(states[positions].to(device)), labels[positions].to(device))

    fit(head, loss, len(states), recipe)
    return head.eval()


@torch.no_grad()
def attentive_outcomes(head: AttentiveHead, states: Iterable[Tensor], labels: Tensor) -> ClassRanks:
    """The rank of each image's class, and what it was taken for.

    Args:
        states: (B, N, D) of some images at a time.
        labels: (Q,) int64, of all images.
    """
    device = head.classifier.weight.device
    logits = torch.cat([head(part.to(device)).cpu() for part in states])
    return class_outcomes(logits, labels)
