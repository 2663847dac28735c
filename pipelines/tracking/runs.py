"""Tracked runs as plain values: side by side, two against each other, and what each was made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from pipelines.tracking.view import COLUMNS


@dataclass(frozen=True)
class TrackedRun:
    """One run, as a tracking server has it."""

    id: str
    name: str
    status: str
    experiment_id: str
    """Of the experiment that has it."""
    seconds: float | None
    """How long was worked on it; None while it runs."""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last of each."""
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[tuple[str, str, str, str]] = ()
    """Use, name, digest and place of its inputs."""
    models: Mapping[int, str] = field(default_factory=dict)
    """Ids of its models by step."""

    @property
    def parent(self) -> str:
        """Id of the run that it is nested in; empty for none."""
        return self.tags.get("mlflow.parentRunId", "")


def table(runs: Sequence[TrackedRun], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what tells the runs apart, how they ended, these metrics; no empty columns."""
    header = ["id", "run", "status", "time", *COLUMNS, *metrics]
    rows = [
        [
            run.id[:8],
            run.name,
            run.status.lower(),
            "" if run.seconds is None else f"{run.seconds:,.0f} s",
            *(run.tags.get(name, "") for name in COLUMNS),
            *(f"{run.metrics[name]:.4g}" if name in run.metrics else "" for name in metrics),
        ]
        for run in runs
    ]
    used = [place for place in range(len(header)) if any(row[place] for row in rows)]
    return [header[place] for place in used], [[row[place] for place in used] for row in rows]


def differences(first: TrackedRun, second: TrackedRun) -> Iterator[tuple[str, str, str]]:
    """Key and both values of every setting and metric in which two runs differ; `-` where one has none."""
    for one, other in ((first.params, second.params), (_shown(first.metrics), _shown(second.metrics))):
        for key in sorted(one.keys() | other.keys()):
            values = one.get(key, "-"), other.get(key, "-")
            if values[0] != values[1]:
                yield key, *values


def _shown(metrics: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{value:.6g}" for key, value in metrics.items()}


def origins(run: TrackedRun) -> dict[str, str]:
    """Folders that other runs have made for it, by what it took from them."""
    table = run.params.get("data.document_frequency", "None")
    found = {"shards": run.params.get("data.shards") or run.params.get("shards", "")}
    found["document frequencies"] = "" if table == "None" else str(PurePath(table).parent)
    return {what: folder for what, folder in found.items() if folder}
