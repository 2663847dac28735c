"""The pictures that a sweep ends with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.checkpoints.checkpoint import read_run

if TYPE_CHECKING:
    from vlp.pictures.sweeps import Point

MOMENTS = 64


@dataclass(frozen=True)
class Pictured:
    """What the pictures show."""

    points: "Mapping[str, Sequence[Point]]"
    """Metric -> settings that were trained to the end."""
    folders: Mapping[str, Path]
    """Setting, in words -> folder of one of its runs."""


def write_pictures(pictured: Pictured, folder: Path) -> list[str]:
    """Draw what there is to draw; returns the names of the files."""
    from vlp.pictures.sweeps import axis_charts, pair_charts, pairs_of, parallel_coordinates, schedules

    names = []
    for number, (metric, points) in enumerate(pictured.points.items()):
        if not points:
            continue
        charts = {"axes": axis_charts, "parallel": parallel_coordinates}
        if pairs_of(points):
            charts["pairs"] = pair_charts
        for kind, chart in charts.items():
            names.append(f"{kind}{number or ''}.png")
            chart(points, metric=metric).save(folder / names[-1])
    if curves := _schedules(pictured.folders):
        names.append("schedules.png")
        schedules(curves).save(folder / names[-1])
    return names


def _schedules(folders: Mapping[str, Path]) -> dict[str, dict[str, list[float]]]:
    """What of the masks changes with the training, by name and setting; calibrated as it was in the run."""
    curves: dict[str, dict[str, list[float]]] = {}
    for setting, folder in folders.items():
        mask = read_run(folder).mask
        states = [mask.state(moment / MOMENTS) for moment in range(MOMENTS)]
        for name in states[0]:
            values = [state[name] for state in states]
            if len(set(values)) > 1:
                curves.setdefault(name, {})[setting] = values
    return curves
