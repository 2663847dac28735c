"""A heat map of similarities shows each pair where it lies, and says its range."""

import numpy as np
import torch

from vlp.pictures.similarity import similarity_matrix


def test_pairs_that_fit_are_light_and_others_dark() -> None:
    images = torch.eye(6)
    fits, shifted = similarity_matrix(images, images), similarity_matrix(images, images.roll(1, dims=0))
    assert fits.size == shifted.size
    differs = np.argwhere((np.asarray(fits) != np.asarray(shifted)).any(axis=2))
    (top, left), (bottom, right) = differs.min(axis=0), differs.max(axis=0) + 1
    cells = np.asarray(fits)[top:bottom, left:right].astype(int).sum(axis=2)
    middles = (np.arange(6) * 2 + 1) * (bottom - top) // 12
    lightness = cells[np.ix_(middles, middles)]
    assert (lightness == np.where(np.eye(6), lightness.max(), lightness.min())).all()
    assert lightness.max() > 2 * lightness.min()


def test_similarities_that_are_all_alike_are_drawn() -> None:
    assert similarity_matrix(torch.ones(3, 1), torch.ones(3, 1)).size[0] > 0
