"""A report of anything that was measured: folders of results and runs of MLflow, on one page."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.config.machine import MachineConfig
from pipelines.reports.comparison import compare
from pipelines.reports.folders import INDEX, Index, found_in
from pipelines.reports.measured import Measured, with_own_names
from pipelines.reports.page import report_sections, write_page
from pipelines.reports.sweeps import ablation_tables, is_sweep
from pipelines.reports.tables import Table
from pipelines.reports.tracked import found_runs


def make_report(
    places: Sequence[str],
    output: Path,
    *,
    title: str,
    baseline: str | None,
    experiment: str | None,
    where: str | None,
    machine: MachineConfig,
) -> None:
    """Write the pages of what was measured into a folder.

    Args:
        places: folders of pipelines, sweeps, runs or evaluations; others are ids or names of runs of MLflow.
        baseline: method that the others' differences are from; None is that of the pipeline, if it is of one.
        experiment: of MLflow, all of whose runs are taken where no place is named.
        where: filter in MLflow's language, whose runs are added.

    Raises:
        UserError: there is nothing of that kind, or it was not measured.
        ConfigError: no method is called as the baseline.
    """
    folders = [Path(place) for place in places if Path(place).exists()]
    names = [place for place in places if not Path(place).exists()]
    ablations: list[Table] = []
    found: list[Measured] = []
    for folder in folders:
        if is_sweep(folder):
            ablations += ablation_tables(folder)
        else:
            found += found_in(folder, machine)
    if names or experiment is not None or where is not None:
        found += found_runs(names, machine, experiment=experiment, where=where)
    found = with_own_names(found)
    comparison = compare(title, found, baseline=baseline or _baseline(folders))
    output.mkdir(parents=True, exist_ok=True)
    write_page(output, comparison, report_sections(comparison, found, ablations=ablations))


def _baseline(folders: Sequence[Path]) -> str | None:
    """That of the pipeline, where there is one alone."""
    if len(folders) != 1 or not (folders[0] / INDEX).is_file():
        return None
    return Index.read(folders[0]).baseline
