"""What a sweep searches, and how."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from vlp.core.config import Above, AtLeast, StrictConfig, check_name


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig(StrictConfig):
    """ASHA (arXiv:1810.05934): stops a trial that is worse than the others after as many steps."""

    grace_steps: Annotated[int, AtLeast(1)]
    """No trial is stopped before; a multiple of `evaluation.every_steps` of the run."""
    reduction_factor: Annotated[float, Above(1)] = 2.0
    """One of this many trials goes on at each rung."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig(StrictConfig):
    """A search over the settings of one run."""

    name: str
    """Of the sweep: its folder of results, and its experiment in MLflow."""
    plugins: tuple[str, ...] = ()
    """Modules of one's own, beside those that the pipeline and its run name."""
    pipeline: Path
    """File whose data and evaluation sets are used; what it has made already is not made again."""
    run: str
    """Name of the pipeline's run whose settings are searched."""
    overrides: dict[str, Any]
    """Settings that all trials share, on top of the run's: dotted keys."""
    space: dict[str, dict[str, Any]]
    """Dotted key -> {sampler of ray.tune: arguments}: mask.anchor_ratio: {loguniform: [0.01, 0.2]}."""
    metric: str
    """What is compared: `val/` and a metric of the evaluation."""
    mode: Literal["max", "min"] = "max"
    """Whether the highest or the lowest value is the best."""
    num_trials: Annotated[int, AtLeast(1)]
    """Draws from `space`; a grid is tried as often."""
    seed: int = 0
    """Of the draws from `space`."""
    scheduler: SchedulerConfig
    """When a trial is stopped early."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)

    @property
    def total_trials(self) -> int:
        """All trials of the search: every point of its grids is tried `num_trials` times."""
        return self.num_trials * prod(len(sampler.get("grid_search", "-")) for sampler in self.space.values())
