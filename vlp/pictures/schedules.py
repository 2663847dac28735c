"""What of a mask changes with the training, and how far it is."""

from matplotlib.figure import Figure
from PIL import Image

from vlp.masking import MaskStrategy
from vlp.pictures.figure import draw

POINTS = 200


def schedules(mask: MaskStrategy, progress: float) -> Image.Image | None:
    """One line per number of the mask over the whole training, marked at a progress; None where it has none.

    Args:
        progress: share of the training that is done, in [0, 1].
    """
    moments = [i / POINTS for i in range(POINTS)]
    states = [mask.state(moment) for moment in moments]
    if not states[0]:
        return None
    height = 2.2 * len(states[0])
    figure = Figure(figsize=(6.4, height), dpi=120)
    figure.subplots_adjust(left=0.14, right=0.98, bottom=0.5 / height, top=1 - 0.1 / height)
    rows = figure.subplots(len(states[0]), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(rows, states[0], strict=True):
        axes.plot(moments, [state[name] for state in states], color="#4878a8")
        axes.axvline(progress, color="#e8322d", linewidth=1)
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set(xlabel="share of the training", xlim=(0, 1))
    return draw(figure)
