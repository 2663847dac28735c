"""How numbers are distributed: histograms and shares, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vlp.pictures.figure import draw

COLOR = "#4878a8"


@dataclass(frozen=True)
class Histogram:
    """How often each number of a range was seen; numbers beyond are counted in the last bin."""

    label: str
    edges: np.ndarray
    """(bins + 1,) increasing."""
    counts: np.ndarray
    """(bins,) int64."""

    @classmethod
    def empty(cls, label: str, *, highest: int, step: int = 1) -> "Histogram":
        """Bins of `step` from 0 to `highest`."""
        edges = np.arange(0, highest + step + 1, step)
        return cls(label, edges, np.zeros(len(edges) - 1, dtype=np.int64))

    def add(self, values: np.ndarray) -> None:
        """Count some more numbers, none below 0."""
        self.counts[:] += np.histogram(values.clip(max=self.edges[-1] - 1), self.edges)[0]

    def quantile(self, share: float) -> int:
        """The lower edge of the bin up to which that share of the numbers lies; 0 where there are none."""
        return int(self.edges[np.searchsorted(self.counts.cumsum(), share * self.counts.sum())])


def distributions(histograms: list[Histogram], shares: Mapping[str, int]) -> Image.Image:
    """One chart per histogram, cut off where the last number lies, and a bar per share."""
    figure = Figure(figsize=(3.2 * (len(histograms) + 1), 2.6), dpi=150, layout="constrained")
    *charts, bars = figure.subplots(1, len(histograms) + 1)
    for chart, histogram in zip(charts, histograms, strict=True):
        used = max(1, int(np.count_nonzero(histogram.counts[::-1].cumsum())))
        chart.stairs(histogram.counts[:used], histogram.edges[: used + 1], fill=True, color=COLOR)
        chart.set_title(histogram.label, fontsize=9, loc="left")
    largest = dict(sorted(shares.items(), key=lambda item: -item[1])[:8])
    bars.barh(list(largest), list(largest.values()), height=0.7, color=COLOR)
    bars.set_ylim(max(4, len(largest)) - 0.5, -0.5)  # the largest on top; a single bar stays a bar
    bars.set_xscale("symlog")
    bars.set_title("outcomes", fontsize=9, loc="left")
    for chart in (*charts, bars):
        chart.spines[["top", "right"]].set_visible(False)
        chart.tick_params(labelsize=8)
    return draw(figure)
