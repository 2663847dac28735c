"""The picture of what changes with the training marks where the training is."""

import numpy as np
import pytest
from PIL import Image

from vlp.masking.cluster import ClusterMask
from vlp.masking.random import RandomMask
from vlp.pictures.masks import ANCHOR
from vlp.pictures.schedules import LINE, schedules

MASK = ClusterMask(feature="mix", threshold=0.6)


def places(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of a colour."""
    return np.argwhere((np.asarray(picture) == color).all(axis=2))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_mark_moves_with_the_training(progress: float) -> None:
    picture = schedules(MASK, progress)
    assert picture is not None
    line, mark = places(picture, LINE)[:, 1], places(picture, ANCHOR)[:, 1]
    first, last = min(line.min(), mark.min()), max(line.max(), mark.max())
    assert mark.mean() == pytest.approx(first + progress * (last - first), abs=5)


def test_a_number_that_grows_is_a_line_that_rises() -> None:
    picture = schedules(MASK, 0.0)
    assert picture is not None
    rows, columns = places(picture.crop((0, 0, picture.width, picture.height // 2)), LINE).T
    assert np.corrcoef(rows, columns)[0, 1] < -0.99


def test_a_mask_that_never_changes_has_none() -> None:
    assert schedules(RandomMask(), 0.5) is None
