"""Pictures of a search."""

import numpy as np
import pytest
from PIL import Image

from vlp.pictures.sweeps import Point, Scale, axis_charts, pair_charts, parallel_coordinates, schedules

POINTS = [
    Point({"anchors": count, "feature": feature}, count / 10 + shift, 0.02)
    for count in (1, 4, 40)
    for feature, shift in (("rgb", 0.0), ("mix", 0.1))
]


def ink(picture: Image.Image) -> int:
    """Pixels that are not white."""
    return int((np.asarray(picture) < 250).any(axis=2).sum())


@pytest.mark.parametrize("chart", [axis_charts, pair_charts, parallel_coordinates])
def test_every_setting_leaves_its_mark(chart) -> None:
    few, all_of_them = chart(POINTS[:2], metric="recall"), chart(POINTS, metric="recall")
    assert ink(few) > 1000
    assert few.tobytes() != all_of_them.tobytes()


def test_a_single_setting_and_equal_scores_can_be_drawn() -> None:
    for points in (POINTS[:1], [POINTS[0], POINTS[0]._replace(spread=None)]):
        for chart in (axis_charts, pair_charts, parallel_coordinates):
            assert ink(chart(points, metric="recall")) > 500


def test_one_axis_is_no_pair() -> None:
    with pytest.raises(ValueError, match="takes two"):
        pair_charts([Point({"anchors": 1}, 0.5, None)], metric="recall")


def test_wide_ranges_are_logarithmic_and_choices_keep_their_order() -> None:
    assert Scale.of([0.01, 0.1, 1.0]).shares() == pytest.approx([0.0, 0.5, 1.0])
    assert Scale.of([1, 2, 3]).shares() == pytest.approx([0.0, 0.5, 1.0])
    assert not Scale.of([1, 2, 3]).is_log
    assert Scale.of(["rgb", "mix", "rgb"]) == Scale([0.0, 1.0, 0.0], ["rgb", "mix"], False)
    assert Scale.of_cells([4, 1, 40, 1]) == Scale([1.0, 0.0, 2.0, 0.0], ["1", "4", "40"], False)
    assert Scale.of([True, False]).ticks == ["True", "False"]


def test_a_line_of_every_setting_is_in_the_picture_of_schedules() -> None:
    progress = np.linspace(0, 1, 11)
    lines = {f"alpha_power={power}": list(progress**power) for power in (1, 2, 3)}
    whole = schedules({"alpha": lines})
    assert ink(whole) > ink(schedules({"alpha": dict(list(lines.items())[:1])}))
