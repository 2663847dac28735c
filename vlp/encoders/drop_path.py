"""Branches that are skipped for some samples in training (stochastic depth, arXiv:1603.09382)."""

from collections.abc import Iterator

from torch import Generator, Tensor, nn

from vlp.core.distributed import rows_of_global_draw


class DropPath(nn.Module):
    """Leaves a branch out for a share of the samples; what is drawn for a sample comes from outside."""

    noise: Tensor | None = None
    """(B,) numbers in [0, 1), one for each sample of the next input."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Skip samples of a branch, and scale the others so that the mean stays: (B, ...) -> (B, ...)."""
        if not self.training or self.drop_prob == 0:
            return x
        assert self.noise is not None
        kept = (self.noise >= self.drop_prob).to(x.dtype) / (1 - self.drop_prob)
        return x * kept.view(-1, *[1] * (x.ndim - 1))


def replace_drop_paths(encoder: nn.Module) -> None:
    """Put ours in the place of timm's, which draw for a batch as it comes, in parts or on many workers."""
    from timm.layers.drop import DropPath as TimmDropPath

    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, TimmDropPath):
                setattr(module, name, DropPath(child.drop_prob))


def draw_drop_paths(model: nn.Module, num_samples: int, generator: Generator | None) -> Tensor | None:
    """What decides the branches that this worker's samples skip: (B, branches); None where none does.

    It is the worker's rows of one draw for the whole global batch.
    """
    paths = list(_drop_paths(model)) if model.training else []
    if not paths:
        return None
    device = next(model.parameters()).device
    return rows_of_global_draw((num_samples, len(paths)), device, generator)


def set_drop_paths(model: nn.Module, noise: Tensor | None) -> None:
    """Have the next samples skip what was drawn for them: (B, branches)."""
    if noise is not None:
        for path, column in zip(_drop_paths(model), noise.unbind(dim=1), strict=True):
            path.noise = column


def _drop_paths(model: nn.Module) -> Iterator[DropPath]:
    return (module for module in model.modules() if isinstance(module, DropPath) and module.drop_prob > 0)
