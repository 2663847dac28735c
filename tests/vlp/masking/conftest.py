import pytest
import torch
from torch import Tensor

from vlp.encoders.patches import patchify


@pytest.fixture(scope="session")
def waves() -> Tensor:
    """The deterministic images of which golden numbers are known: (4, 3, 224, 224)."""
    n, c, i, j = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) for size in (4, 3, 224, 224)), indexing="ij"
    )
    return (
        torch.sin(0.013 * (i + 1) * (c + 1) + 0.029 * (j + 1) + 0.7 * n)
        * torch.cos(0.017 * j * (n + 1) - 0.011 * i)
    ).float()


@pytest.fixture(scope="session")
def wave_patches(waves: Tensor) -> Tensor:
    """(4, 196, 768)."""
    return patchify(waves, 16)
