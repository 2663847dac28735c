"""What a sweep ends with: a table of its settings, and the best of them as files for `vlp pretrain`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipelines.config.settings import to_dict
from pipelines.sweeps.history import History, Run, Trace
from pipelines.sweeps.pictures import Pictured, write_pictures
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.standings import Score, Standing, best_of, front, run_score, score_text, standings
from pipelines.sweeps.trial import Trials, axis_text, axis_value, label, patches_of
from vlp.core.markdown import markdown_table

BEST = "best"
NOT_SEARCHED = "-"
"""In the place of a setting whose condition is not met."""


@dataclass(frozen=True)
class Outcome:
    """How far a sweep is, and who is ahead."""

    config: SweepConfig
    trials: Trials
    history: History
    found: Sequence[Standing]
    """Every setting, the best first."""

    @classmethod
    def of(cls, config: SweepConfig, trials: Trials, history: History) -> "Outcome":
        """The outcome of a sweep so far."""
        return cls(config, trials, history, standings(history, config))

    @property
    def best(self) -> list[Standing]:
        """The best setting, or the Pareto front where there are several metrics."""
        if len(self.config.metrics) > 1:
            return front(self.found, self.config)
        best = best_of(self.found, self.config)
        return [] if best is None else [best]

    def pictured(self) -> Pictured:
        """The settings that were trained to the end, as pictures show them."""
        from vlp.pictures.sweeps import Point

        done = [one for one in self.found if one.is_done]
        values = [self.history.settings[one.number].values for one in done]
        runs = [self.trials.config(each) for each in values]
        # By what they do, where that is a number of patches in every run.
        searched = {
            key: [run for run, each in zip(runs, values, strict=True) if key in each]
            for key in self.config.space
        }
        is_count = {
            key: all(patches_of(run, key) is not None for run in found) for key, found in searched.items()
        }
        places = [
            {
                f"{key} (patches)" if is_count[key] else key: axis_value(run, key, each[key])
                for key in is_count
                if key in each
            }
            for run, each in zip(runs, values, strict=True)
        ]
        points = {
            metric: [
                Point(place, one.scores[metric].mean, one.scores[metric].spread)
                for place, one in zip(places, done, strict=True)
            ]
            for metric in self.config.metrics
        }
        labels = [label(run, each) for run, each in zip(runs, values, strict=True)]
        names = [self.history.folder_of(Run(one.number, 0)) for one in done]
        folders = [self.trials.output(name) for name in names]
        return Pictured(points, dict(zip(labels, folders, strict=True)))

    def file(self, one: Standing) -> Path:
        """Where the settings of one of the best are, for `vlp pretrain`."""
        is_alone = len(self.config.metrics) == 1
        return self.trials.folder / (f"{BEST}.yaml" if is_alone else f"{BEST}-{one.number:04d}.yaml")

    def said(self, one: Standing) -> str:
        """The scores of a setting, of which step they are, and the setting."""
        scores = ", ".join(f"{metric} = {score_cell(score)}" for metric, score in one.scores.items())
        setting = self.trials.label(self.history.settings[one.number].values)
        copies = copies_text(self.history.trace(Run(one.number, 0)))
        return f"{scores} with {setting}, {score_text(self.config)}{copies}"


def forget_best(outcome: Outcome) -> None:
    """Take away the best settings of a sweep that goes on: it may end with others."""
    for former in outcome.trials.folder.glob(f"{BEST}*.yaml"):
        former.unlink()


def write_outcome(outcome: Outcome) -> None:
    """Write the best settings, without what only a sweep needs, and the table; both go to the record, too."""
    folder, journal = outcome.trials.folder, outcome.trials.journal
    forget_best(outcome)
    for one in outcome.best:
        run = outcome.trials.config(outcome.history.settings[one.number].values)
        outcome.file(one).write_text(yaml.safe_dump(to_dict(run), sort_keys=False))
        journal.artifact(outcome.file(one))
    if outcome.best:
        first = outcome.best[0]
        journal.metrics({f"best/{metric}": score.mean for metric, score in first.scores.items()})
        journal.tags({"best": outcome.trials.label(outcome.history.settings[first.number].values)})
    (folder / "report.md").write_text(report_markdown(outcome))
    (folder / "report.json").write_text(
        json.dumps([_record(outcome, one) for one in outcome.found], indent=1)
    )
    for name in ("report.md", "report.json", *write_pictures(outcome.pictured(), folder)):
        journal.artifact(folder / name, folder="report")
    _describe(outcome)


def _describe(outcome: Outcome) -> None:
    """Make the sweep's own record the page of its comparison: the table, with a link to every trial."""
    trials = outcome.trials
    folders = {_number(one): trials.journal_of(Run(one.number, 0)).folder for one in outcome.found}
    header, *body = _cells(outcome)
    linked = [[mark, f"[{number}]", *cells] for mark, number, *cells in body]
    best = "\n\n".join(f"Best: {outcome.said(one)}." for one in outcome.best)
    text = f"{markdown_table(header, linked)}\n{_remark(outcome.config)}\n\n{best}\n\n[all runs]\n"
    trials.journal.describe(text, runs=folders, columns=list(outcome.config.metrics))


def print_table(outcome: Outcome) -> None:
    """Show every setting on the terminal, the best first."""
    header, *body = _cells(outcome)
    table = Table(title=f"{outcome.config.name}: {score_text(outcome.config)}", box=SIMPLE_HEAD)
    for heading in header:
        table.add_column(heading, no_wrap=True)
    for cells in body:
        table.add_row(*cells)
    widest = Console(width=1000).measure(table).maximum
    Console(width=max(widest, Console().width)).print(table)


def report_markdown(outcome: Outcome) -> str:
    """The table, and what it compares."""
    header, *body = _cells(outcome)
    return f"{markdown_table(header, body)}\n{_remark(outcome.config)}\n"


def _remark(config: SweepConfig) -> str:
    """What the scores are."""
    spread = f", mean ± standard deviation over {config.seeds} seeds" if config.seeds > 1 else ""
    return f"scores: {score_text(config)}{spread}; * is the best"


def _number(one: Standing) -> str:
    """By which a table names a setting."""
    return f"{one.number:04d}"


def score_cell(score: Score) -> str:
    """A score with its spread."""
    return f"{score.mean:.4f}" + ("" if score.spread is None else f" ± {score.spread:.4f}")


def copies_text(trace: Trace) -> str:
    """Whose weights a trial went on with, in words."""
    return "".join(f", weights of {copy.donor:04d} after {copy.step}" for copy in trace.copies)


def _cells(outcome: Outcome) -> list[list[str]]:
    config, axes = outcome.config, list(outcome.config.space)
    header = ["", "trial", *axes, *config.metrics, *(["seeds"] if config.seeds > 1 else []), "state"]
    best = {one.number for one in outcome.best}
    body = []
    for one in outcome.found:
        values = outcome.history.settings[one.number].values
        run = outcome.trials.config(values)
        scores = [score_cell(one.scores[key]) if key in one.scores else "-" for key in config.metrics]
        seeds = [f"{one.num_ended}/{config.seeds}"] if config.seeds > 1 else []
        mark = "*" if one.number in best else ""
        shown = [axis_text(run, key, values[key]) if key in values else NOT_SEARCHED for key in axes]
        state = one.state + copies_text(outcome.history.trace(Run(one.number, 0)))
        body.append([mark, _number(one), *shown, *scores, *seeds, state])
    return [header, *body]


def _record(outcome: Outcome, one: Standing) -> dict[str, object]:
    """A line of the table with its numbers, those of single seeds included."""
    config, history = outcome.config, outcome.history
    traces = {f"seed+{seed}": history.trace(Run(one.number, seed)) for seed in range(config.seeds)}
    by_seed = {
        name: {metric: run_score(trace, metric, config) for metric in config.metrics}
        for name, trace in traces.items()
    }
    scores = {metric: score._asdict() for metric, score in one.scores.items()}
    setting = history.settings[one.number].values
    copies = [copy._asdict() for copy in history.trace(Run(one.number, 0)).copies]
    return asdict(one) | {"scores": scores, "by_seed": by_seed, "setting": setting, "copies": copies}
