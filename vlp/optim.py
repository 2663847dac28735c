"""AdamW as CLIP uses it: what decays, and the warmup-cosine schedule."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from vlp.config import StrictConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(StrictConfig):
    """Defaults are CLIP's on CC12M."""

    lr: float = 5e-4
    """Peak learning rate, after warmup."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.2
    """Not applied to vectors and scalars: biases, norms, the class token, the logit scale."""
    warmup_steps: int = 2000
    """Optimizer steps of linear warmup."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over all parameters; vectors and scalars are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if not _is_vector(p)], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if _is_vector(p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def learning_rate(config: OptimizerConfig, step: int, *, total_steps: int) -> float:
    """Linear warmup to the peak, then half a cosine to 0, for 0 <= step < total_steps."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / (total_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def _is_vector(parameter: nn.Parameter) -> bool:
    """Whether all its numbers lie along one dimension, as those of a (1, 1, D) class token do."""
    return parameter.numel() == max(parameter.shape, default=1)
