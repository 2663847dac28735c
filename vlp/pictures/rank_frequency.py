"""Zipf's picture of a corpus: the share of captions that contain a token, by the token's rank."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from vlp.pictures.figure import draw
from vlp.tokenizers.document_frequency import DocumentFrequency


def rank_frequency(frequencies: Mapping[str, DocumentFrequency]) -> Image.Image:
    """One line per table on logarithmic axes, tokens that never occur left out."""
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    least = 1.0
    for i, (name, frequency) in enumerate(frequencies.items()):
        shares = np.sort(frequency.counts[frequency.counts > 0])[::-1] / max(1, frequency.num_documents)
        ranks = np.arange(1, len(shares) + 1)
        least = min([least, *shares[-1:]])
        label = f"{name}: {len(shares):,} of {len(frequency.counts):,} tokens"
        axes.plot(ranks, shares, color=colormaps["tab10"](i % 10), linewidth=1.6, label=label)
    axes.set(xlabel="rank of the token", ylabel="share of captions that contain it")
    axes.set(xscale="log", yscale="log")
    # Stated, as without a line there are none to be found on logarithmic axes.
    most_tokens = max((np.count_nonzero(frequency.counts) for frequency in frequencies.values()), default=0)
    axes.set(xlim=(0.8, max(10, 1.3 * most_tokens)), ylim=(min(0.1, 0.7 * least), 1.5))
    axes.grid(color="#ddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if frequencies:
        axes.legend(frameon=False, fontsize=9, loc="lower left")
    return draw(figure)
