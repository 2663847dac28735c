"""Reductions over logits too large to copy, or to exist: in parts, and once more in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlp.core.precision import without_autocast

MAX_NUMBERS = 2**22
"""Numbers of a part: 16 MiB in float32, of which a reduction holds a few copies."""
CACHED_NUMBERS = 2**18
"""Numbers of a part on a CPU, where all copies of a part should stay in a core's cache."""

MAX_PRODUCTS = 2**24
"""Numbers of a part of products that are computed for the part: fewer would read the columns too often."""
_is_whole = ContextVar("is_whole", default=False)


@contextmanager
def in_one_part() -> Iterator[None]:
    """Have products exist whole: where they are counted and not computed, they take no memory."""
    token = _is_whole.set(True)
    try:
        yield
    finally:
        _is_whole.reset(token)


def by_rows_of_product(
    reduction: Callable[..., Tensor], rows: Tensor, columns: Tensor, *others: Tensor
) -> Tensor:
    """Reduce each row of `rows @ columns.T`, of which one part at a time exists: (B, D), (K, D) -> (B,).

    Products that make a single part are kept for the backward pass, those of several computed again in it. So
    memory grows with B + K, not with B K (Inf-CL, arXiv:2410.17243).

    Args:
        reduction: (b, K) float32 and the others' b rows, (B, ...), -> (b,).
        rows, columns: the products are computed in their format, whatever the autocast.
    """

    def reduce(part: Tensor, *others: Tensor) -> Tensor:
        with without_autocast(part.device):
            return reduction((part @ columns.T).float(), *others)

    every = (rows, *others)
    size = len(rows) if _is_whole.get() else max(1, MAX_PRODUCTS // len(columns))
    if len(rows) <= size:
        return reduce(*every)
    parts = zip(*(x.split(size) for x in every), strict=True)
    reduced: list[Any] = [
        checkpoint(reduce, *part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
    return torch.cat(reduced)


def by_rows(reduction: Callable[..., Tensor], logits: Tensor, *others: Tensor) -> Tensor:
    """Reduce each row of the logits, with the same rows of other tensors: (B, K), (B, ...) -> (B,).

    Args:
        reduction: (b, K) float32 and the others' b rows -> (b,); no gradient flows to the others.
    """

    def reduce(part: Tensor, first: int) -> Tensor:
        return reduction(part, *(x[first : first + len(part)] for x in others))

    return _InParts.apply(logits, 0, reduce)  # pyright: ignore[reportReturnType]


def by_columns(reduction: Callable[[Tensor, int], Tensor], logits: Tensor) -> Tensor:
    """Reduce each column of the logits: (B, K) -> (..., K).

    Args:
        reduction: (B, k) float32 and the position of the first of the columns -> (..., k).
    """
    return _InParts.apply(logits, 1, reduction)  # pyright: ignore[reportReturnType]


def soft_cross_entropy(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each row to weighted classes: (B, K), (B, T), (B, T) -> (B,).

    Its gradient, sum(weights) * softmax - weights, is written at once into the memory where it stays.
    """
    return _SoftCrossEntropy.apply(logits, ids, weights)  # pyright: ignore[reportReturnType]


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        logsumexp = torch.cat([part.float().logsumexp(dim=1) for part in _parts(logits, 0)[1]])
        ctx.save_for_backward(logits, ids, weights, logsumexp)
        return weights.sum(dim=1) * logsumexp - (weights * logits.gather(1, ids)).sum(dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, ids, weights, logsumexp = ctx.saved_tensors
        weights = weights * gradients[0][:, None]
        gradient = torch.empty_like(logits)
        firsts, parts = _parts(logits, 0)
        for first, part in zip(firsts, parts, strict=True):
            rows = slice(first, first + len(part))
            softmax = (part.float() - logsumexp[rows, None]).exp_()
            softmax.mul_(weights[rows].sum(dim=1, keepdim=True)).scatter_add_(1, ids[rows], -weights[rows])
            gradient[rows] = softmax
        return gradient, None, None


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, dim: int, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.dim, ctx.reduce = dim, reduce
        firsts, parts = _parts(logits, dim)
        with without_autocast(logits.device):
            return torch.cat([reduce(x.float(), i) for i, x in zip(firsts, parts, strict=True)], dim=-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (logits,) = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        firsts, parts = _parts(logits, ctx.dim)
        width = parts[0].shape[ctx.dim]
        outputs = zip(gradients[0].split(width, dim=-1), gradient.split(width, dim=ctx.dim), strict=True)
        for first, part, (above, below) in zip(firsts, parts, outputs, strict=True):
            x = part.float().detach().requires_grad_()
            with torch.enable_grad(), without_autocast(logits.device):
                reduced = ctx.reduce(x, first)
            below.copy_(torch.autograd.grad(reduced, x, above)[0])
        return gradient, None, None


def _parts(logits: Tensor, dim: int) -> tuple[range, tuple[Tensor, ...]]:
    """Position of the first row (or column) of each part, and the parts."""
    length = logits.shape[dim]
    limit = min(MAX_NUMBERS, CACHED_NUMBERS) if logits.device.type == "cpu" else MAX_NUMBERS
    width = max(1, limit * length // max(1, logits.numel()))
    return range(0, length, width), logits.split(width, dim=dim)
