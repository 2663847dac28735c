"""The config classes of the commands, by the keys that their settings go by."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.config.catalog import Entry, entries, summary
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build, check_still_named
from pipelines.curation.balance import BalanceSettings
from pipelines.evaluation.convert_set import ConvertSetConfig
from pipelines.evaluation.evaluate import EvaluateConfig
from pipelines.evaluation.export import ExportConfig
from pipelines.ingest.settings import DownloadConfig
from pipelines.shards.codes import FitCodesConfig
from pipelines.shards.docfreq import DocfreqConfig
from pipelines.shards.index import IndexConfig
from pipelines.sweeps.settings import SweepConfig
from pipelines.training.checks import check_length, check_on_machine
from pipelines.workflow.plan import LATER, PipelineConfig, Plan, check_before_data
from vlp.run import RunConfig

COMMANDS: Mapping[str, Any] = {
    "machine": MachineConfig,
    "pipeline": PipelineConfig,
    "sweep": SweepConfig,
    "download": DownloadConfig,
    "index": IndexConfig,
    "docfreq": DocfreqConfig,
    "fit-codes": FitCodesConfig,
    "balance": BalanceSettings,
    "evaluate": EvaluateConfig,
    "convert-set": ConvertSetConfig,
    "export": ExportConfig,
}
"""What a setting is under in `vlp settings` -> its class; those of a run are under their own keys."""
OF_RUNS = ("pretrain", "plan", "print-config")
"""Commands whose settings are those of a training run, or of what has some."""


class Parsed(NamedTuple):
    """Settings of some command."""

    config: Any
    runs: list[RunConfig]
    """The training runs that they are, or are about."""


def config_of(command: str) -> Any:
    """The class of what a command can be told beside the machine's settings; None where that is nothing."""
    if command in OF_RUNS:
        return RunConfig
    return COMMANDS.get("pipeline" if command == "run" else command)


def parse_any(layers: Layers, machine: MachineConfig) -> Parsed:
    """Parse the settings of a run, a pipeline, a sweep or a download, told by a key that only it has."""
    parsers = {"runs": _pipeline, "space": _sweep, "objective": _run, "url_list": _download}
    given = layers.merged()
    for key, parse in parsers.items():
        if key in given:
            return parse(layers, machine)
    raise ConfigError(
        f"these settings are of no run, pipeline, sweep or download: they have none of {', '.join(parsers)}"
    )


def _pipeline(layers: Layers, machine: MachineConfig) -> Parsed:
    plan = Plan.read(layers)
    plan.check()
    check_before_data(plan, machine)
    return Parsed(plan.config, plan.runs(LATER, LATER))


def _sweep(layers: Layers, machine: MachineConfig) -> Parsed:
    return Parsed(build(SweepConfig, layers), [])


def _run(layers: Layers, machine: MachineConfig) -> Parsed:
    run = build(RunConfig, layers)
    check_still_named(layers)
    check_on_machine(run, machine)
    check_length(run)
    return Parsed(run, [run])


def _download(layers: Layers, machine: MachineConfig) -> Parsed:
    return Parsed(build(DownloadConfig, layers), [])


def all_settings() -> list[Entry]:
    """The settings of a run, and what each of the other commands takes."""
    others = (Entry(key, config, "settings", summary(config)) for key, config in COMMANDS.items())
    return [*entries(RunConfig), *others]
