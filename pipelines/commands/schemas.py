"""Which dataclass a set of settings is meant for, told by the keys that only it has."""

from typing import Any

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.ingest.download import DownloadConfig
from pipelines.sweeps.sweep import SweepConfig
from pipelines.training.checks import check_on_machine
from pipelines.workflow.plan import LATER, PipelineConfig, Plan, check_before_data
from vlp.run import RunConfig

MARKS = {"runs": PipelineConfig, "space": SweepConfig, "objective": RunConfig, "url_list": DownloadConfig}


def remarks(config: Any) -> str:
    """What follows from settings and is none, as comments: steps that a budget pays for, scaled rates."""
    if isinstance(config, PipelineConfig):
        return "".join(map(remarks, Plan(config).runs(LATER, LATER)))
    if not isinstance(config, RunConfig):
        return ""
    lines, budget, pairs = [], config.training.budget, config.training.batch_size
    if budget is not None and budget.needs_pace:
        lines.append(
            f"training.budget.seconds {budget.amount:g} pays for steps at the pace that is measured before "
            "the first one"
        )
    elif budget is not None:
        lines.append(
            f"training.budget.{budget.measure} {budget.amount:g} pays for {config.num_masked_steps:,} steps "
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
    for key, schema in MARKS.items():
        if key in layers.values:
            config = build(schema, layers)
            if isinstance(config, PipelineConfig):
                Plan(config).check()
                check_before_data(Plan(config), machine)
            if isinstance(config, RunConfig):
                check_on_machine(config, machine)
            return config
    raise ConfigError(
        f"these settings are of no run, pipeline, sweep or download: they have none of {', '.join(MARKS)}"
    )
