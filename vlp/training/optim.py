"""Optimizers, and which parameters decay and learn at which rate."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from vlp.core.config import Above, AtLeast, StrictConfig, Within
from vlp.core.registry import Registry
from vlp.encoders.blocks import Encoder
from vlp.objectives import Objective

OPTIMIZERS = Registry()


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(ABC, StrictConfig):
    """What decays: matrices, but no vector or scalar such as a bias, a norm, a class token, a logit scale."""

    FIXED: ClassVar = frozenset({"name", "decayed", "undecayed", "layer_decay"})
    """Settings that stay while a run trains: they decide which state there is, and how it is grouped."""

    name: str
    """Which optimizer it is."""
    lr: Annotated[float, Above(0)] = 5e-4
    """Peak learning rate, after warmup."""
    lr_batch_size: Annotated[int, AtLeast(1)] | None = None
    """Batch size that the run's rates are meant for: at another, the peak and its schedule are scaled in
    proportion (arXiv:1706.02677), as MAE, SimMIM and FLIP do; None takes them as they are."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.2
    """Share of the rate by which each decayed weight shrinks at a step."""
    decayed: tuple[str, ...] = ()
    """Last names of vectors that decay nevertheless, such as `mask_token`."""
    undecayed: tuple[str, ...] = ()
    """Last names of matrices that do not, such as `relative_position_bias_table`."""
    layer_decay: Annotated[float, Within(0, 1, "(]")] = 1.0
    """Each layer of an encoder learns this many times as fast as the one above it."""

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """An optimizer of groups of parameters, each with its own `weight_decay` and `lr_scale`."""

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay is applied to a parameter."""
        last = name.rpartition(".")[2]
        return last in self.decayed if is_vector(parameter) else last not in self.undecayed


@OPTIMIZERS.register
@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """Defaults are CLIP's on CC12M."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    """Shares of the old averages of the gradient, and of its square, that stay at each step."""
    eps: float = 1e-6
    """Added to the root of the average square."""

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


@OPTIMIZERS.register
@dataclass(frozen=True, kw_only=True)
class LARSConfig(OptimizerConfig):
    """Steps as long as each matrix allows, for very large batches (arXiv:1708.03888); MAE's linear probe."""

    name: Literal["lars"] = "lars"
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    momentum: float = 0.9
    """Share of the last step that is taken again."""
    trust_coefficient: float = 1e-3
    """Length of a step relative to the matrix, at a learning rate of 1."""

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        from timm.optim.lars import Lars

        for group in groups:
            group["always_adapt"] = not all(is_vector(parameter) for parameter in group["params"])
        momentum: Any = self.momentum  # timm says int
        return Lars(groups, lr=self.lr, momentum=momentum, trust_coeff=self.trust_coefficient)


def build_optimizer(model: Objective, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all trained parameters; its groups have their share of the rate as `lr_scale`."""
    scales = dict(learning_rate_scales(model.encoders, config.layer_decay))
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if config.decays(name, parameter) else 0.0
            groups[decay, scales.get(name, 1.0), is_vector(parameter)].append(parameter)
    return config.build(
        [
            {"params": parameters, "weight_decay": decay, "lr_scale": scale}
            for (decay, scale, _), parameters in groups.items()
        ]
    )


def learning_rate_scales(encoders: Mapping[str, Encoder], layer_decay: float) -> Iterator[tuple[str, float]]:
    """The share of the rate of each parameter of an encoder with L blocks (as BEiT, arXiv:2106.08254).

    The embeddings are layer 0, block i is layer i + 1, what follows the blocks, or is shared by
    them all, is layer L + 1 and learns at the full rate, like all that is in no encoder.

    Args:
        encoders: by the first part of their parameters' names.
    """
    for prefix, encoder in encoders.items():
        members = {id(block) for block in encoder.blocks}
        blocks = [name for name, module in encoder.named_modules() if id(module) in members]
        layer, last = 0, len(blocks) + 1
        for name, _ in encoder.named_parameters():
            if name in encoder.shared_by_blocks:
                yield f"{prefix}.{name}", 1.0
                continue
            inside = next((i for i, block in enumerate(blocks) if name.startswith(f"{block}.")), None)
            if inside is not None:
                layer = inside + 1
            elif layer == len(blocks):
                layer += 1
            yield f"{prefix}.{name}", layer_decay ** (last - layer)


def is_vector(parameter: nn.Parameter) -> bool:
    """Whether all its numbers lie along one dimension, as those of a (1, 1, D) class token do."""
    return parameter.numel() == max(parameter.shape, default=1)
