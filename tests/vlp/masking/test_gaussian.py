"""GLIP's mask against its definition, with the density of SciPy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator

from vlp.masking import MaskInputs
from vlp.masking.gaussian import GaussianMask


def density(variance: float, points: np.ndarray) -> np.ndarray:
    """Of a normal distribution around the middle, at some points."""
    covariance: Any = variance * np.eye(2)  # typed as a number
    return multivariate_normal([0, 0], covariance).pdf(points).flatten()


@pytest.mark.parametrize("variance", [0.2, 1.0])
def test_the_density_is_that_of_scipy(variance: float) -> None:
    line = np.linspace(-1, 1, 14)
    points = np.stack(np.meshgrid(line, line), axis=-1)
    expected = density(variance, points)
    found = GaussianMask(variance=variance).density(196, torch.device("cpu"))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_patches_are_shown_as_often_as_by_the_definition() -> None:
    count, N, shown = 4000, 49, 12
    mask = GaussianMask(mask_ratio=0.75)
    masked = mask(MaskInputs.of(torch.zeros(count, N, 1)), generator=Generator().manual_seed(0))
    assert (~masked).sum(dim=1).eq(shown).all()
    rng = np.random.default_rng(0)
    line = np.linspace(-1, 1, 7)
    scores = rng.random((count, N)) + density(0.2, np.stack(np.meshgrid(line, line), -1))
    expected = np.zeros(N)
    for row in scores:
        expected[np.argsort(-row)[:shown]] += 1 / count
    found = (~masked).float().mean(dim=0).numpy()
    assert np.abs(found - expected).max() < 5 * (0.5 / count) ** 0.5
    assert found[24] > 5 * found[0], "the centre is shown, the corners are not"
