"""One optimizer step, and the settings of a training run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.amp.grad_scaler import GradScaler

from vlp.core.batch import Batch
from vlp.core.config import Above, AtLeast, StrictConfig
from vlp.core.distributed import rank
from vlp.core.registry import ByName
from vlp.core.seeds import mix_seeds
from vlp.masking import Slots
from vlp.objectives import Objective, Step
from vlp.training.bad_steps import BadStepConfig
from vlp.training.ema import EMAConfig
from vlp.training.length import LengthConfig
from vlp.training.lr_schedule import LR_SCHEDULES, Cosine, LRSchedule

NO_SCALING = GradScaler(enabled=False)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(StrictConfig):
    """How long and how a model is trained."""

    length: LengthConfig = LengthConfig(steps=10_000)
    """How long, by one measure: naming another one replaces it."""
    batch_size: Annotated[int, AtLeast(1)] = 256
    """Pairs per step, over all workers."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass; weights and optimizer stay in fp32. In fp16 the loss is scaled, and
    steps that overflow are left out until the scale fits; for GPUs without bf16."""
    max_grad_norm: Annotated[float, Above(0)] | None = None
    """Gradients longer than this are scaled down; None leaves them."""

    ema: EMAConfig | None = None
    """How the weights are averaged over the steps; None for no average."""
    on_bad_step: BadStepConfig = BadStepConfig()
    """What becomes of steps that would harm the weights."""


@dataclass(frozen=True, kw_only=True)
class TuningConfig(StrictConfig):
    """Steps on whole images that follow the masked ones, to close the gap to evaluation (FLIP,
    arXiv:2212.00794, section 3); the optimizer's state is kept."""

    steps: Annotated[int, AtLeast(1)]
    """Optimizer steps on whole images."""
    lr: Annotated[float, Above(0)]
    """Peak learning rate, after warmup."""
    lr_schedule: Annotated[LRSchedule, ByName(LR_SCHEDULES, default="cosine")] = Cosine(warmup_steps=0)
    """How the learning rate goes over these steps."""


def forward(model: nn.Module, batch: Batch, config: TrainingConfig, *, step: int, seed: int) -> Step:
    """The model's loss at one step: progress and randomness are pure functions of (seed, step).

    Args:
        config: its length is known in steps.
    """
    with _randomness(batch, config, step=step, seed=seed) as (progress, generator):
        return model(batch, progress=progress, generator=generator)


@torch.no_grad()
def choose_visible(
    objective: Objective, batch: Batch, config: TrainingConfig, *, step: int, seed: int
) -> Slots:
    """The patches of each image that `forward` shows at a step."""
    with _randomness(batch, config, step=step, seed=seed) as (progress, generator):
        images = objective.mix(batch, generator).images
        return objective.choose_visible(images, progress=progress, generator=generator)


@contextmanager
def _randomness(
    batch: Batch, config: TrainingConfig, *, step: int, seed: int
) -> Iterator[tuple[float, Generator]]:
    """The context of a step's forward pass: its progress, and the source of its masks."""
    device = batch.images.device
    generator = Generator(device).manual_seed(mix_seeds(seed, step))
    torch.manual_seed(mix_seeds(seed, step, rank()))  # what layers draw themselves, such as dropped paths
    dtype = torch.float16 if config.precision == "fp16" else torch.bfloat16
    with torch.autocast(device.type, dtype, enabled=config.precision != "fp32"):
        assert config.length.steps is not None
        yield min(1.0, step / config.length.steps), generator


def build_scaler(config: TrainingConfig, device: torch.device) -> GradScaler:
    """What keeps the small gradients of fp16 from vanishing; one that scales nothing otherwise."""
    return GradScaler(device.type, enabled=config.precision == "fp16")


def update(
    model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, *, lr: float, max_norm: float | None
) -> Tensor:
    """Backward and one optimizer step, unless the gradient is not finite; returns its norm: ()."""
    norm = backward(model, loss, optimizer)
    take_step(model, optimizer, norm, lr=lr, max_norm=max_norm, is_good=norm.isfinite())
    return norm


def backward(
    model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, scaler: GradScaler = NO_SCALING
) -> Tensor:
    """Compute the gradient of a step; returns its norm: ()."""
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    norm: Tensor,
    *,
    lr: float,
    max_norm: float | None,
    is_good: Tensor,
) -> None:
    """Change the weights by a gradient of a known norm, unless the step is a bad one.

    Args:
        is_good: () bool on the device, which is asked only for optimizers that cannot be told there, as
            PyTorch's fused ones can.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
    if getattr(optimizer, "_step_supports_amp_scaling", False):  # as GradScaler tells them
        told: Any = optimizer
        told.found_inf = (~is_good).float()
        optimizer.step()
    elif is_good:
        optimizer.step()
