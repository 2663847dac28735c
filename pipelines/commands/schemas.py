"""Which dataclass a set of settings is meant for, told by the keys that only it has."""

from typing import Any

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.ingest.download import DownloadConfig
from pipelines.sweeps.sweep import SweepConfig
from pipelines.training.checks import check_length, check_on_machine
from pipelines.workflow.plan import LATER, PipelineConfig, Plan, check_before_data
from vlp.run import RunConfig

MARKS = {"runs": PipelineConfig, "space": SweepConfig, "objective": RunConfig, "url_list": DownloadConfig}


def remarks(config: Any) -> str:
    """What follows from settings and is none, as comments: steps that a length pays for, scaled rates."""
    if isinstance(config, PipelineConfig):
        return "".join(map(remarks, Plan(config).runs(LATER, LATER)))
    if not isinstance(config, RunConfig):
        return ""
    lines, length, pairs = [], config.training.length, config.training.batch_size
    if length.needs_pace:
        lines.append(
            f"training.length.seconds {length.amount:g} pays for steps at the pace that is measured before "
            "the first one"
        )
    elif length.measure != "steps":
        lines.append(
            f"training.length.{length.measure} {length.amount:g} pays for {config.num_masked_steps:,} steps "
            f"of {pairs:,} pairs"
        )
    if config.lr_scale != 1:
        lr, meant = config.optimizer.lr, config.optimizer.lr_batch_size
        lines.append(
            f"optimizer.lr {lr:g} is meant for batches of {meant:,} (optimizer.lr_batch_size): "
            f"{lr * config.lr_scale:g} for those of {pairs:,}"
        )
    return "".join(f"# {config.name}: {line}\n" for line in lines)


def parse_any(layers: Layers, machine: MachineConfig) -> Any:
    """Parse the settings of a run, a pipeline, a sweep or a download, that work on a machine."""
    given = layers.merged()
    for key, schema in MARKS.items():
        if key in given:
            config = build(schema, layers)
            if isinstance(config, PipelineConfig):
                plan = Plan(config, layers)
                plan.check()
                check_before_data(plan, machine)
            if isinstance(config, RunConfig):
                check_on_machine(config, machine)
                check_length(config)
            return config
    raise ConfigError(
        f"these settings are of no run, pipeline, sweep or download: they have none of {', '.join(MARKS)}"
    )
