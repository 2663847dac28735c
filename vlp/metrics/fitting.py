"""How a small head learns on what a frozen model gives: AdamW, a linear warm-up, and a cosine to 0."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long a head learns, and how fast."""

    epochs: int
    """Passes over all items."""
    lr: float
    """Peak learning rate."""
    weight_decay: float
    """Of every parameter."""
    batch_size: int
    """Items per step; all where there are fewer."""
    warmup_steps: int = 0
    """Steps of linear warm-up; a tenth of all steps at most."""


def fit(head: nn.Module, loss: Callable[[Tensor], Tensor], num_items: int, recipe: Recipe) -> None:
    """Train a head, in place; the same from the same weights.

    Args:
        loss: of a batch, (B,) int64 positions of items, to a scalar.
    """
    steps_per_epoch = math.ceil(num_items / recipe.batch_size)
    steps = recipe.epochs * steps_per_epoch
    warmup_steps = min(recipe.warmup_steps, steps // 10)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, warmup_steps, steps))
    generator = Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(recipe.epochs):
            for positions in torch.randperm(num_items, generator=generator).split(recipe.batch_size):
                optimizer.zero_grad()
                loss(positions).backward()
                nn.utils.clip_grad_norm_(head.parameters(), 1.0)
                optimizer.step()
                schedule.step()


def _rate(step: int, warmup_steps: int, steps: int) -> float:
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps))) / 2
