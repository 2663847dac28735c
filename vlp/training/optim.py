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
        """An optimizer of groups of parameters, each with its own `kind`, `weight_decay` and `lr_scale`."""

    def kind(self, parameter: nn.Parameter, *, is_hidden: bool) -> str:
        """What of a parameter the optimizer tells apart; those of one kind may share a group.

        Args:
            is_hidden: whether it is the matrix of a linear layer within a block.
        """
        return "vector" if is_vector(parameter) else "matrix"

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
            group["always_adapt"] = group["kind"] == "matrix"
        momentum: Any = self.momentum  # timm says int
        return Lars(groups, lr=self.lr, momentum=momentum, trust_coeff=self.trust_coefficient)


@OPTIMIZERS.register
@dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Steps that are equally long in all directions, for the matrices of blocks; AdamW for all other weights.

    The momentum of each matrix is made orthogonal by five steps of Newton and Schulz in bf16 (Jordan, Muon,
    2024; arXiv:2502.16982).
    """

    name: Literal["muon"] = "muon"
    lr: Annotated[float, Above(0)] = 0.02
    """Peak learning rate of the matrices, after warmup."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.01
    momentum: Annotated[float, Within(0, 1, "[)")] = 0.95
    """Share of the old average of the gradient that stays at each step; Nesterov's, one step ahead."""
    scale: Literal["original", "match_rms_adamw"] = "original"
    """How long a step of a matrix is: max(1, rows / columns)^0.5, or 0.2 max(rows, columns)^0.5, as long as
    AdamW's, for rates and weight decay that were found for it."""
    adamw_lr: Annotated[float, Above(0)] = 5e-4
    """Peak learning rate of all other weights; both go by the one schedule."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's, of all other weights."""
    eps: float = 1e-6
    """AdamW's, of all other weights."""

    def kind(self, parameter: nn.Parameter, *, is_hidden: bool) -> str:
        return "hidden" if is_hidden else super().kind(parameter, is_hidden=is_hidden)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        hidden = [group for group in groups if group["kind"] == "hidden"]
        others = [group for group in groups if group["kind"] != "hidden"]
        for group in others:
            group["lr_scale"] *= self.adamw_lr / self.lr
        steps: Any = {"lr": self.lr, "momentum": self.momentum, "adjust_lr_fn": self.scale}
        adamw = torch.optim.AdamW(others, lr=self.adamw_lr, betas=self.betas, eps=self.eps, fused=True)
        return SeveralOptimizers([torch.optim.Muon(hidden, **steps), adamw] if hidden else [adamw])


class SeveralOptimizers(torch.optim.Optimizer):
    """Optimizers that share the parameters of a model among them, as one: its groups and state are theirs."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)  # which makes new groups
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def build_optimizer(model: Objective, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all trained parameters; its groups have their share of the rate as `lr_scale`."""
    scales = dict(learning_rate_scales(model.encoders, config.layer_decay))
    layers = (layer for block in model.blocks for layer in block.modules())
    hidden = {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)}
    groups: dict[tuple[float, float, str], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if config.decays(name, parameter) else 0.0
            kind = config.kind(parameter, is_hidden=id(parameter) in hidden)
            groups[decay, scales.get(name, 1.0), kind].append(parameter)
    return config.build(
        [
            {"params": parameters, "weight_decay": decay, "lr_scale": scale, "kind": kind}
            for (decay, scale, kind), parameters in groups.items()
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
