"""Losses of a classifier to several labels per image, compared in table 6 of SuperClass (arXiv:2411.03313).

A loss takes logits (B, K) and each caption's labels as a list, and never builds the (B, K) target. It walks
over the logits in parts of bounded size: beyond them and their gradient it holds O(B x T).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.core.config import Above, StrictConfig, Within
from vlp.core.distributed import all_gather, all_sum, world_size
from vlp.core.registry import Registry
from vlp.losses.in_parts import by_columns, by_rows, soft_cross_entropy

LABEL_LOSSES = Registry()
ABSENT = -1e30  # a logit that takes no part in a logsumexp; finite, so that an empty one has gradient 0

Reduction = Literal["mean", "batch_mean"]


class Labels(NamedTuple):
    """The distinct tokens of each caption; a slot that holds none has `is_label` False."""

    ids: Tensor
    """(B, T) int64."""
    is_label: Tensor
    """(B, T) bool."""


@dataclass(frozen=True, kw_only=True)
class LabelLoss(ABC, StrictConfig):
    """What is minimized, given logits and labels; its mean over the workers is that of the global batch."""

    name: str
    """Which loss it is."""
    formula: ClassVar[str] = ""
    """The loss, in plain text."""
    takes_idf: ClassVar[bool] = False
    """Whether labels are weighted by inverse document frequency, or all alike."""

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
        """The loss: (B, K), (B, T), (K,) -> ()."""


@LABEL_LOSSES.register
@dataclass(frozen=True, kw_only=True)
class SoftmaxLoss(LabelLoss):
    """Cross-entropy to the weighted labels: SuperClass's own."""

    name: Literal["softmax"] = "softmax"
    formula: ClassVar[str] = "-sum over c of y_c log softmax(z)_c"
    takes_idf: ClassVar[bool] = True

    def __call__(self, logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
        return softmax_loss(logits, labels, idf)


@LABEL_LOSSES.register
@dataclass(frozen=True, kw_only=True)
class BinaryLoss(LabelLoss):
    """Binary cross-entropy of every class (CatLIP, arXiv:2404.15653)."""

    name: Literal["bce"] = "bce"
    formula: ClassVar[str] = "binary cross-entropy of every class"
    reduction: Reduction = "batch_mean"
    """Divide the sum by the images (CatLIP), or by images times classes."""

    def __call__(self, logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
        return binary_loss(logits, labels, self.reduction)


@LABEL_LOSSES.register
@dataclass(frozen=True, kw_only=True)
class SoftMarginLoss(LabelLoss):
    """log(1 + exp(-t x)), t = 1 for labels and -1 otherwise: binary cross-entropy by another name."""

    name: Literal["soft_margin"] = "soft_margin"
    formula: ClassVar[str] = "mean over c of log(1 + exp(-y_c z_c))"
    reduction: Reduction = "mean"
    """Divide the sum by the images, or by images times classes (PyTorch)."""

    def __call__(self, logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
        return binary_loss(logits, labels, self.reduction)


@LABEL_LOSSES.register
@dataclass(frozen=True, kw_only=True)
class AsymmetricLoss(LabelLoss):
    """ASL (arXiv:2009.14119): binary cross-entropy that looks away from easy negatives."""

    name: Literal["asl"] = "asl"
    formula: ClassVar[str] = "asymmetric focal loss of every class"
    gamma_negative: float = 4.0
    """Focusing power of absent classes; 0, or at least 1."""
    gamma_positive: float = 1.0
    """Focusing power of labels; 0, or at least 1."""
    margin: Annotated[float, Within(0, 1, "[)")] = 0.05
    """An absent class of at most this probability costs nothing."""
    focus_gradient: Literal["stop", "pass"] = "stop"
    """Whether the focusing weights are constants to the gradient, as released."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("gamma_negative", "gamma_positive"):
            if not (getattr(self, key) == 0 or getattr(self, key) >= 1):
                raise ValueError(f"{key} must be 0 or at least 1, got {getattr(self, key)}")

    def __call__(self, logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
        return asymmetric_loss(logits, labels, self)


@LABEL_LOSSES.register
@dataclass(frozen=True, kw_only=True)
class TwoWayLoss(LabelLoss):
    """Labels against other classes in an image, and images against others in a class (Kobayashi 2023)."""

    name: Literal["two_way"] = "two_way"
    formula: ClassVar[str] = "two-way softmax over classes and images"
    positive_temperature: Annotated[float, Above(0)] = 4.0
    """By which the logits of labels are divided."""
    negative_temperature: Annotated[float, Above(0)] = 1.0
    """By which the logits of other classes are divided."""

    def __call__(self, logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
        return two_way_sample_loss(logits, labels, self) + two_way_class_loss(logits, labels, self)


def softmax_loss(logits: Tensor, labels: Labels, idf: Tensor) -> Tensor:
    """Softmax cross-entropy to the IDF-weighted labels: (B, K), (B, T), (K,) -> ().

    The labels' weights are scaled to sum to 1 per caption; a caption without weight costs nothing.
    """
    weights = idf[labels.ids] * labels.is_label
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)

    return soft_cross_entropy(logits, labels.ids, weights).mean()


def binary_loss(logits: Tensor, labels: Labels, reduction: Reduction) -> Tensor:
    """Binary cross-entropy: (B, K), (B, T) -> (). As if all were absent, and corrected at the labels."""

    def losses(x: Tensor, ids: Tensor, is_label: Tensor) -> Tensor:
        return F.softplus(x).sum(dim=1) - (x.gather(1, ids) * is_label).sum(dim=1)

    mean = by_rows(losses, logits, *labels).mean()
    return mean / logits.shape[1] if reduction == "mean" else mean


def asymmetric_loss(logits: Tensor, labels: Labels, loss: AsymmetricLoss) -> Tensor:
    """ASL, summed over classes: (B, K), (B, T) -> (). The release sums over images too."""

    def focused(error: Tensor, gamma: float, log_likelihood: Tensor) -> Tensor:
        weight = error.pow(gamma)
        return -(weight.detach() if loss.focus_gradient == "stop" else weight) * log_likelihood

    def absent(x: Tensor) -> Tensor:
        if loss.margin == 0:
            return focused(x.sigmoid(), loss.gamma_negative, F.logsigmoid(-x))
        shifted = (torch.sigmoid(-x) + loss.margin).clamp(max=1)
        return focused(1 - shifted, loss.gamma_negative, shifted.log())

    def present(x: Tensor) -> Tensor:
        return focused(torch.sigmoid(-x), loss.gamma_positive, F.logsigmoid(x))

    def losses(x: Tensor, ids: Tensor, is_label: Tensor) -> Tensor:
        picked = x.gather(1, ids)
        return absent(x).sum(dim=1) + ((present(picked) - absent(picked)) * is_label).sum(dim=1)

    return by_rows(losses, logits, *labels).mean()


def two_way_sample_loss(logits: Tensor, labels: Labels, loss: TwoWayLoss) -> Tensor:
    """Mean over the global batch's images that have labels: (B, K), (B, T) -> ()."""
    Tp, Tn = loss.positive_temperature, loss.negative_temperature

    def losses(x: Tensor, ids: Tensor, is_label: Tensor) -> Tensor:
        positive = (-x.gather(1, ids) / Tp).masked_fill(~is_label, ABSENT)
        negative = _place(x / Tn, ids, is_label, ABSENT)
        return F.softplus(Tn * negative.logsumexp(dim=1) + Tp * positive.logsumexp(dim=1))

    has_label = labels.is_label.any(dim=1)
    count = all_sum(has_label.sum()).clamp(min=1)
    return world_size() * (by_rows(losses, logits, *labels) * has_label).sum() / count


def two_way_class_loss(logits: Tensor, labels: Labels, loss: TwoWayLoss) -> Tensor:
    """Mean over the classes that some image of the global batch has: (B, K), (B, T) -> ().

    Every worker reduces its own images to a row of K numbers, and all rows are combined.
    """
    Tp, Tn = loss.positive_temperature, loss.negative_temperature

    def logsumexps(x: Tensor, first: int) -> Tensor:
        ids = labels.ids - first
        here = labels.is_label & (ids >= 0) & (ids < x.shape[1])
        negative = _place(x / Tn, ids, here, ABSENT)
        # A label's place holds 0 in the difference, any other place ABSENT.
        is_absent = _place(torch.full_like(x, ABSENT), ids, here, 0.0)
        return torch.stack([negative.logsumexp(dim=0), (is_absent - x / Tp).logsumexp(dim=0)])

    negative, positive = all_gather(by_columns(logsumexps, logits)[None]).logsumexp(dim=0)
    is_present = positive > ABSENT / 2
    losses = F.softplus(Tn * negative + Tp * positive)
    return (losses * is_present).sum() / is_present.sum().clamp(min=1)


def _place(x: Tensor, ids: Tensor, is_label: Tensor, value: float) -> Tensor:
    """A copy of x (B, K) with a value in place of each label's entry; slots without label write nowhere."""
    K = x.shape[1]
    return F.pad(x, (0, 1)).scatter(1, ids.where(is_label, K), value)[:, :K]
