"""What became of the URLs of a download, as a table and as a picture."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlp.shards.contents import Examples, ShardStats
from vlp.shards.outcome import SUCCESS, meaning
from vlp.shards.writing import NUM_EXAMPLES

TABLE, PICTURE = "outcomes.csv", "outcomes.png"


def write_summary(folder: Path, outcomes: Counter[str], shards: Iterable[ShardStats]) -> list[Path]:
    """Write `outcomes.csv` and `outcomes.png`; returns their paths."""
    _write_table(folder / TABLE, outcomes, _examples(shards))
    _draw(folder / PICTURE, outcomes)
    return [folder / TABLE, folder / PICTURE]


def _write_table(path: Path, outcomes: Counter[str], examples: Examples) -> None:
    total = max(outcomes.total(), 1)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["outcome", "urls", "share", "meaning", "error", *_columns()])
        for outcome, count in _ranked(outcomes):
            found = examples.get(outcome, [])
            error = found[0]["error"] if found else ""
            urls = [example["url"] for example in found]
            writer.writerow([outcome, count, f"{count / total:.4%}", meaning(outcome), error, *urls])


def _draw(path: Path, outcomes: Counter[str]) -> None:
    from matplotlib.figure import Figure

    ranked = _ranked(outcomes)[::-1]
    total = max(outcomes.total(), 1)
    figure = Figure(figsize=(8, 1 + 0.3 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    colors = ["tab:green" if outcome == SUCCESS else "tab:red" for outcome, _ in ranked]
    bars = axes.barh([outcome for outcome, _ in ranked], [count for _, count in ranked], color=colors)
    labels = [f"{count:,} ({count / total:.2%})" for _, count in ranked]
    axes.bar_label(bars, labels, padding=3)
    axes.margins(x=0.2)
    axes.set_xlabel(f"of {total:,} URLs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _ranked(outcomes: Counter[str]) -> list[tuple[str, int]]:
    """Success first, then the most frequent failures; ties by name, so that equal counts are equal files."""
    return sorted(outcomes.items(), key=lambda item: (item[0] != SUCCESS, -item[1], item[0]))


def _examples(shards: Iterable[ShardStats]) -> Examples:
    examples: dict[str, list[Mapping[str, str]]] = {}
    for stats in shards:
        for outcome, found in (stats.examples or {}).items():
            kept = examples.setdefault(outcome, [])
            kept.extend(found[: NUM_EXAMPLES - len(kept)])
    return examples


def _columns() -> list[str]:
    return [f"example_{i + 1}" for i in range(NUM_EXAMPLES)]
