"""One page without anything beside it: masks on images, with sliders for their settings.

Every mask of the grid is in the page, a bit per patch, so that it shows what the strategy itself chose: of
196 patches a mask takes 25 bytes. All registered masks on six images make a page of 2.6 MB.
"""

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from vlp.pictures.mask_grid import DIALS, MOMENTS, NUM_SEEDS, Look, MaskGrid, bits
from vlp.pictures.masks import COLORS

TEMPLATE = Path(__file__).with_suffix(".html")
DATA = "/*DATA*/null"
"""Where the template takes what is shown."""


class MaskRow(NamedTuple):
    """A mask of the page."""

    name: str
    about: str
    """What it is, in a line of plain text."""
    remark: str
    """Where the weights come from that it looks through, if it does."""
    patches_per_side: int
    grid: MaskGrid


def mask_page(rows: Sequence[MaskRow], images: Sequence[tuple[str, Image.Image]], *, progress: float) -> str:
    """The page, as HTML.

    Args:
        images: name and square picture of each, in the order of the grids.
        progress: share of the training that is done where the page opens, in [0, 1].
    """
    content = {
        "images": [{"name": name, "source": _data_uri(picture)} for name, picture in images],
        "stops": [
            {"name": "anchor ratio", "texts": _texts(DIALS["anchor_ratio"])},
            {"name": "target ratio", "texts": _texts(DIALS["target_ratio"])},
            {"name": "alpha: training done", "texts": [f"{moment:.0%}" for moment in MOMENTS]},
            {"name": "seed", "texts": ["as set", *(f"+ {i}" for i in range(1, NUM_SEEDS))]},
        ],
        "start": [0, 0, min(range(len(MOMENTS)), key=lambda i: abs(MOMENTS[i] - progress)), 0],
        "colors": COLORS,
        "rows": [_row(row) for row in rows],
    }
    text = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    return TEMPLATE.read_text(encoding="utf-8").replace(DATA, text)


def _texts(values: Sequence[float | None]) -> list[str]:
    return ["as set" if value is None else f"{value:g}" for value in values]


def _row(row: MaskRow) -> dict[str, Any]:
    grid = row.grid
    return {
        "name": row.name,
        "about": row.about,
        "remark": row.remark,
        "side": row.patches_per_side,
        "sizes": [*grid.sizes, NUM_SEEDS],
        "possible": [bool(looks) for looks in grid.looks],
        "notes": list(grid.notes),
        "distances": [_rounded(value) for value in grid.distances],
        "ratios": [_rounded(value) for value in grid.ratios()],
        "hidden": _packed([[bits(one.hidden) for one in looks] for looks in grid.looks]),
        "masked": _packed([[bits(one.choice.masked) for one in looks] for looks in grid.looks]),
        "anchors": _packed([[_anchors(one) for one in looks] for looks in grid.looks]),
        "clusters": _packed([[_clusters(one) for one in looks] for looks in grid.looks]),
    }


def _anchors(look: Look) -> np.ndarray | None:
    anchors = look.choice.anchors
    return None if anchors is None else bits(torch.zeros_like(look.hidden).scatter(1, anchors, True))


def _clusters(look: Look) -> np.ndarray | None:
    """A byte per patch, 0 for a patch of none: clusters beyond 255 share their numbers."""
    clusters = look.choice.clusters
    return None if clusters is None else torch.where(clusters < 0, 0, clusters % 255 + 1).byte().numpy()


def _packed(parts: list[list[np.ndarray | None]]) -> str | None:
    """All settings, seeds and images in a row, as base64; None where there is nothing to show."""
    known = [part for seeds in parts for part in seeds if part is not None]
    if not known:
        return None
    nothing = [np.zeros_like(known[0])] * NUM_SEEDS
    whole = np.concatenate([part for seeds in parts for part in (seeds or nothing) if part is not None])
    return base64.b64encode(whole.tobytes()).decode()


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _data_uri(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
