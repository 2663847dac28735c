"""One trial of a sweep: a run with the settings of a point, in a process of its own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.checkpoints.mirror import ensure
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, absolute_paths, build, flat_params, to_dict
from pipelines.sweeps.history import SHARED, Run
from pipelines.sweeps.samplers import value_text
from pipelines.tracking.journal import Journal
from pipelines.training.job import STOP, Part
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import resolve
from pipelines.training.workers import StoppedError
from vlp.run import RunConfig

MASK, TRIAL = "mask.", "trial-"
MEASURED = "val/"
"""Begins the names of metrics that trials are compared by."""
AGAIN = "again"
"""Beside metrics of a former process; this one has not begun to train."""
FAILURE = "failure"
"""What a trial reports in place of metrics, where it ended for good."""


class Stretch(NamedTuple):
    """What a process trains of a run."""

    run: Run
    values: dict[str, Any]
    """Settings of its point."""
    folder: str
    """Name of the folder where it does."""
    start: str | None
    """Checkpoint of another run that it begins from, below the folder of the trials."""
    until: int
    """Step after which it ends, for now."""
    kept: list[int]
    """Steps whose checkpoints others may begin from."""

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Stretch":
        """Read from plain values."""
        return cls(**plain)._replace(run=Run(*plain["run"]))

    @property
    def is_shared(self) -> bool:
        """Whether it is the first steps of all trials."""
        return self.run.setting == SHARED


@dataclass(frozen=True)
class Trials:
    """What all trials share; sent to the process of each."""

    run: dict[str, Any]
    """Settings of the sweep's run."""
    machine: MachineConfig
    started_in: Path
    """What the paths of a point's settings are relative to; trials run in folders of their own."""
    folder: Path
    """Of the sweep."""
    journal: Journal
    """Of the sweep."""

    def config(self, values: dict[str, Any], *, seed: int = 0) -> RunConfig:
        """The run with the settings of a point on top.

        Args:
            seed: added to that of the run.
        """
        layers = Layers().add(self.run, "sweep").set(values, "sweep: space")
        config = absolute_paths(build(RunConfig, layers), self.started_in)
        return replace(config, seed=config.seed + seed)

    def label(self, values: dict[str, Any]) -> str:
        """The settings of a point as overrides, with what they come to."""
        return label(self.config(values), values)

    def output(self, name: str) -> Path:
        """Folder of a trial, by its name."""
        return self.folder / "trials" / name

    def ask_to_stop(self, name: str) -> None:
        """Have the workers of a trial end after their next step.

        Where its process is killed in place of that, Ray Train may lose the resources of the workers: its
        controller ends what would free them, and is killed before it does so itself.
        """
        (self.output(name) / STOP).touch()

    def journal_of(self, run: Run) -> Journal:
        """The record of a trial, nested in the sweep's."""
        return Journal(self.journal.folder / f"{TRIAL}{run.key}")

    def seconds_of_work(self) -> float:
        """How long the trials were at work so far, all together."""
        return sum(Journal(each).seconds_of_work() for each in self.journal.folder.glob(f"{TRIAL}*"))


def label(config: RunConfig, values: dict[str, Any]) -> str:
    """Settings as overrides, with what they come to where they are shares of the patches."""
    return " ".join(f"{key}={axis_text(config, key, value)}" for key, value in values.items())


def axis_text(config: RunConfig, key: str, value: Any) -> str:
    """A value, and how many patches it comes to."""
    count = patches_of(config, key)
    said = "" if count is None else f" ({count} of {config.image_encoder.num_patches} patches)"
    return value_text(value) + said


def axis_value(config: RunConfig, key: str, value: Any) -> Any:
    """A value by what it does: the patches that it comes to, or the name of a component."""
    count = patches_of(config, key)
    if count is not None:
        return count
    if isinstance(value, dict):
        others = (f"{name}={value_text(part)}" for name, part in value.items() if name != "name")
        return " ".join([str(value.get("name", "")), *others]).strip()
    return value


def patches_of(config: RunConfig, key: str) -> int | None:
    """How many patches a setting comes to; None where it is no share of them."""
    counts = config.mask.counts(config.image_encoder.num_patches)
    return counts.get(key.removeprefix(MASK)) if key.startswith(MASK) else None


def effect(config: RunConfig) -> str:
    """What decides the result of a run, as one text: settings that come to the same have the same."""
    settings = to_dict(config)
    mask = {key: value for key, value in settings["mask"].items() if key not in config.mask.unused}
    return fingerprint(settings | {"mask": mask | dict(config.mask.counts(config.image_encoder.num_patches))})


def run_trial(given: dict[str, Any], trials: Trials) -> None:
    """Train one setting by one seed; an error is reported, not raised: another attempt would end alike."""
    from ray import tune

    stretch = Stretch.of(given)
    try:
        _train(stretch, trials)
    except StoppedError:
        return
    except Exception as error:
        print(f"[sweep] trial {stretch.run.key} failed: {error!r}", flush=True)
        tune.report({FAILURE: str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)})


def _train(stretch: Stretch, trials: Trials) -> None:
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    run = stretch.run
    start = None if stretch.start is None else trials.output(stretch.start)
    if start and (there := trials.machine.published(start)):
        ensure(start, there.parent)  # another machine may have trained it
    journal = trials.journal_of(run)
    name = f"the first {stretch.until} steps" if stretch.is_shared else trials.label(stretch.values)
    journal.begin(
        name=name + (f" seed+{run.seed}" if run.seed else ""),
        parent=trials.journal.folder,
        tags={"stage": "trial", "trial_id": run.key}
        | ({} if stretch.start is None else {"begins_from": stretch.start}),
    )
    config = trials.config(stretch.values, seed=run.seed)
    journal.params(flat_params(config))
    for step, metrics in _measured_before(journal):
        tune.report(metrics | {"step": step, AGAIN: True})
    # The scheduler decides by the score of a step, so a trial waits for it.
    untracked = replace(trials.machine.checkpoints, track="none")
    machine = replace(trials.machine, checkpoints=untracked, validation_workers=0)
    pretrain(
        resolve(config, machine, start=start),
        trials.output(stretch.folder),
        machine=machine,
        journal=journal,
        part=Part(stretch.until, tuple(stretch.kept)),
        callbacks=[TuneReportCallback()],
    )


def _measured_before(journal: Journal) -> list[tuple[int, dict[str, float]]]:
    """What former processes of a trial measured, by step: the sweep's own may have ended before it heard of
    it, and what goes on behind a checkpoint does not measure that again."""
    found: dict[int, dict[str, float]] = {}
    for record in journal.read():
        if record.kind == "metrics":
            metrics = {k: v for k, v in record.fields["metrics"].items() if k.startswith(MEASURED)}
            if metrics:
                found[record.fields["step"]] = metrics
    return sorted(found.items())
