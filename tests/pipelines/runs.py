"""Runs of tests, from their settings to their end."""

from pathlib import Path

from pipelines.checkpoints.store import RunManifest
from pipelines.config.machine import MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training import pretrain as training
from pipelines.training.resolved import resolve
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.tokenizers.document_frequency import DocumentFrequency

IN_THIS_PROCESS = MachineConfig(num_workers=0)


def pretrain(config: RunConfig, output: Path, *, machine: MachineConfig, journal: Journal) -> RunManifest:
    """Train one run, or go on where it was, as `vlp pretrain` does."""
    return training.pretrain(resolve(config, machine), output, machine=machine, journal=journal)


def fresh_objective(config: RunConfig) -> Objective:
    """The model of a run before its first step."""
    return resolve(config, IN_THIS_PROCESS).build()


def random_objective(config: RunConfig, table: DocumentFrequency | None = None) -> Objective:
    """A model with the architecture of a run; its data are not looked at."""
    return config.build(config.vocabulary(config.tokenizer.build(), table))


def run_identity(config: RunConfig) -> str:
    """What decides the result of a run."""
    return resolve(config, IN_THIS_PROCESS).identity
