"""The data card counts what a folder holds."""

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.shards.verify import verify
from vlp.pictures.distributions import Histogram


def test_the_card_counts_what_is_there(folder: Path, vlp: Any) -> None:
    result = vlp("describe", folder)
    assert result.exit_code == 0, result.stderr
    card = (folder / "card/card.md").read_text()
    assert card == result.stdout
    captions = sum(1 + url % 3 for url in range(1, 20) if url % 5)
    for line in (
        "| images | 16 |",
        f"| captions | {captions} |",
        "| http_404 | 3 | 15.79% |",
        "| host1 | 8 |",
    ):
        assert line in card
    assert (folder / "card/distributions.png").stat().st_size > 5000
    assert list(verify(folder)) == []  # the card is not a stranger


def test_quantiles_are_those_of_the_numbers() -> None:
    values = np.random.default_rng(0).integers(0, 150, 1000)
    histogram = Histogram.empty("numbers", highest=100)
    for part in np.array_split(values, 7):
        histogram.add(part)
    clipped = np.sort(values.clip(max=100))
    assert histogram.counts.sum() == 1000
    for share in (0.05, 0.25, 0.5):
        assert histogram.quantile(share) == clipped[round(share * 1000) - 1]
    assert histogram.quantile(1) == 100
    assert Histogram.empty("none", highest=10).quantile(0.5) == 0
