"""One trial of a sweep: a run with sampled settings, in a process of its own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, absolute_paths, build, flat_params
from pipelines.sweeps.search_space import setting_text
from pipelines.tracking.journal import Journal
from pipelines.training.pretrain import pretrain
from pipelines.training.resolved import resolve
from vlp.run import RunConfig

DRIVER_CPUS = 0.1  # of a trial's own process, which only waits for its training workers


@dataclass(frozen=True)
class Search:
    """What every trial needs to know; sent to its process."""

    run: dict[str, Any]
    machine: MachineConfig
    started_in: Path
    """What the paths of the sampled settings are relative to; trials run in folders of their own."""
    folder: Path
    journal: Journal

    def config(self, sampled: dict[str, Any]) -> RunConfig:
        """The run with the sampled settings on top."""
        layers = Layers().add(self.run, "sweep").set(sampled, "sweep: space")
        return absolute_paths(build(RunConfig, layers), self.started_in)

    def label(self, sampled: dict[str, Any]) -> str:
        """The sampled settings in a few words."""
        return " ".join(f"{key.rpartition('.')[2]}={setting_text(value)}" for key, value in sampled.items())

    def trial_journal(self, trial_id: str) -> Journal:
        """The record of one trial, nested in the sweep's."""
        return Journal(self.journal.folder / f"trial-{trial_id}")


def run_trial(sampled: dict[str, Any], search: Search) -> None:
    """One trial, in a process of its own: pre-training with the sampled settings."""
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    trial_id = tune.get_context().get_trial_id()
    assert trial_id is not None
    journal = search.trial_journal(trial_id)
    journal.begin(
        name=search.label(sampled),
        parent=search.journal.folder,
        tags={"stage": "trial", "trial_id": trial_id},
    )
    config = search.config(sampled)
    journal.params(flat_params(config))
    # The scheduler decides by the score of a step, so a trial waits for it.
    untracked = replace(search.machine.checkpoints, track="none")
    machine = replace(search.machine, checkpoints=untracked, validation_workers=0)
    pretrain(
        resolve(config, machine),
        search.folder / "trials" / trial_id,
        machine=machine,
        journal=journal,
        callbacks=[TuneReportCallback()],
    )
