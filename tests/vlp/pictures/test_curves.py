"""The bar chart draws what it is given."""

import numpy as np
import pytest

from vlp.pictures.curves import metric_bars


def test_a_missing_metric_leaves_its_bar_out():
    full = np.asarray(metric_bars({"CLIP": {"a": 1.0, "b": 2.0}, "FLIP": {"a": 1.0, "b": 2.0}}))
    part = np.asarray(metric_bars({"CLIP": {"a": 1.0, "b": 2.0}, "FLIP": {"a": 1.0}}))
    coloured = [(sheet.max(axis=-1) - sheet.min(axis=-1) > 50).sum() for sheet in (full, part)]
    assert coloured[1] == pytest.approx(0.75 * coloured[0], rel=0.05)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="no metrics"):
        metric_bars({"CLIP": {}})
