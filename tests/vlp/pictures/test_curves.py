"""Bars of methods: one chart per metric."""

import numpy as np
import pytest
from PIL import Image

from vlp.pictures.curves import Bars, bar_charts


def picture(*charts: Bars, title: str = "") -> np.ndarray:
    return np.asarray(bar_charts(charts, ["CLIP", "FLIP"], title=title))


def test_a_metric_that_a_method_lacks_leaves_out_its_bar_alone() -> None:
    both = {"CLIP": 0.5, "FLIP": 0.5}
    full = picture(Bars("a", both), Bars("b", both))
    part = picture(Bars("a", both), Bars("b", {"CLIP": 0.5}))
    changed = (full != part).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert columns.min() > full.shape[1] / 2
    assert rows.min() > full.shape[0] / 2


def test_chance_and_title_are_drawn() -> None:
    plain = picture(Bars("a", {"CLIP": 0.5}))
    assert (plain != picture(Bars("a", {"CLIP": 0.5}, chance=0.25))).any()
    assert (
        plain[: plain.shape[0] // 3] != picture(Bars("a", {"CLIP": 0.5}), title="Demo")[: plain.shape[0] // 3]
    ).any()


def test_intervals_are_whiskers() -> None:
    plain = picture(Bars("a", {"CLIP": 0.5, "FLIP": 1.0}))
    whiskers = picture(Bars("a", {"CLIP": 0.5, "FLIP": 1.0}, intervals={"CLIP": (0.25, 0.75)}))
    rows = np.nonzero((plain != whiskers).any(axis=(1, 2)))[0]
    assert 0 < len(rows) < plain.shape[0] / 2


def test_a_chart_of_zeros_is_one() -> None:
    assert Image.fromarray(picture(Bars("a", {"CLIP": 0.0}))).size[0] > 300


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no metrics"):
        bar_charts([], ["CLIP"], title="")
