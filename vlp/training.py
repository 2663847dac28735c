"""One optimizer step, and the settings of a training run."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vlp.batch import Batch
from vlp.config import StrictConfig
from vlp.distributed import rank
from vlp.ema import EMAConfig
from vlp.lr_schedule import LR_SCHEDULES, Cosine
from vlp.objectives import Step
from vlp.registry import one_of
from vlp.seeds import mix_seeds


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(StrictConfig):
    """How long and how a model is trained."""

    steps: int = 10_000
    """Optimizer steps; 0 keeps the untrained network, to compare with."""
    batch_size: int = 256
    """Pairs per step, over all workers."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the forward pass; weights and optimizer stay in fp32."""
    max_grad_norm: float | None = None
    """Gradients longer than this are scaled down; None leaves them."""

    ema: EMAConfig | None = None
    """How the weights are averaged over the steps; None for no average."""

    def __post_init__(self) -> None:
        for key, least in (("steps", 0), ("batch_size", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} must be at least {least}, got {getattr(self, key)}")


@dataclass(frozen=True, kw_only=True)
class TuningConfig(StrictConfig):
    """Steps on whole images that follow the masked ones, to close the gap to evaluation (FLIP,
    arXiv:2212.00794, section 3); the optimizer's state is kept."""

    steps: int
    lr: float
    """Peak learning rate, after warmup."""
    lr_schedule: one_of(LR_SCHEDULES, default="cosine") = Cosine(warmup_steps=0)  # pyright: ignore[reportInvalidTypeForm]

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")


def forward(model: nn.Module, batch: Batch, config: TrainingConfig, *, step: int, seed: int) -> Step:
    """The model's loss at one step: progress and randomness are pure functions of (seed, step)."""
    device = batch.images.device
    generator = torch.Generator(device).manual_seed(mix_seeds(seed, step))
    torch.manual_seed(mix_seeds(seed, step, rank()))  # what layers draw themselves, such as dropped paths
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        return model(batch, progress=min(1.0, step / config.steps), generator=generator)


def update(
    model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, *, lr: float, max_norm: float | None
) -> Tensor:
    """Backward and one optimizer step; returns the norm of the gradient: ()."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
    optimizer.step()
    return norm
