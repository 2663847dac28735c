"""K-means masking, against scikit-learn."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import cluster
from torch import Generator, Tensor

from vlp.masking import MaskInputs
from vlp.masking.kmeans import KMeansMask, lloyd
from vlp.masking.similarity import standardize_patches

KMeans: Any = cluster.KMeans  # without types: its defaults would tell them


@pytest.fixture
def unit(wave_patches: Tensor) -> Tensor:
    """Standardized patches of length 1, as the mask clusters them: (4, 196, 768)."""
    return F.normalize(standardize_patches(wave_patches), dim=2)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_labels_are_those_of_scikit_learn_from_the_same_start(unit: Tensor, iterations: int) -> None:
    first = torch.rand(4, 196, generator=Generator().manual_seed(0)).topk(8, dim=1).indices
    labels = lloyd(unit.double(), first, iterations=iterations)
    for x, start, found in zip(unit.double().numpy(), first.numpy(), labels.numpy(), strict=True):
        oracle = KMeans(8, init=x[start], n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(x)
        assert np.array_equal(oracle.labels_, found)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_empty_cluster_takes_the_farthest_patch_as_in_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[1] = x[0]  # two equal first centres: the second of them gets no patch
    first = torch.tensor([[0, 1, 2, 3]])
    labels = lloyd(torch.from_numpy(x)[None], first, iterations=5)[0].numpy()
    oracle = KMeans(4, init=x[:4], n_init=1, max_iter=5, tol=0, algorithm="lloyd").fit(x)
    assert len(set(labels.tolist())) == 4
    assert np.array_equal(oracle.labels_, labels)


def test_half_of_the_clusters_are_hidden_whole(wave_patches: Tensor, unit: Tensor) -> None:
    generator = Generator().manual_seed(0)
    masked = KMeansMask()(MaskInputs.of(wave_patches), generator=generator)
    first = torch.rand(4, 196, generator=generator.manual_seed(0)).topk(8, dim=1).indices
    labels = lloyd(unit, first, iterations=10)
    for row in range(4):
        states = [set(masked[row][labels[row] == cluster].tolist()) for cluster in range(8)]
        assert sorted(states, key=list) == [{False}] * 4 + [{True}] * 4


def test_hidden_clusters_are_chosen_uniformly_of_images_that_look_alike(wave_patches: Tensor) -> None:
    """Over many draws, half of an image is hidden: clusters are chosen whatever their size."""
    alike = wave_patches[:1, :, :48].expand(400, -1, -1)
    masked = KMeansMask(iterations=2)(MaskInputs.of(alike), generator=Generator().manual_seed(0))
    assert masked.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_images_of_equal_patches_are_no_trouble() -> None:
    for patches in (torch.zeros(4, 16, 12), torch.ones(4, 3, 12)):
        masked = KMeansMask()(MaskInputs.of(patches), generator=Generator().manual_seed(0))
        assert masked.shape == patches.shape[:2]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_clusters": 1}, "num_clusters"),
        ({"iterations": 0}, "iterations"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"min_mask_ratio": -0.5}, "min_mask_ratio"),
    ],
)
def test_an_impossible_setting_is_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        KMeansMask(**settings)  # pyright: ignore[reportArgumentType]
