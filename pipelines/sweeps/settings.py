"""What a sweep searches, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pipelines.sweeps.samplers import Space
from pipelines.sweeps.schedulers import SCHEDULERS, Scheduler
from pipelines.sweeps.schedulers.none import NoScheduler
from pipelines.sweeps.search import SEARCHES, Search
from pipelines.sweeps.search.random import RandomSearch
from vlp.core.config import Above, AtLeast, StrictConfig, check_name
from vlp.core.registry import ByName

MAY_GROW = ("num_trials", "seeds", "max_hours", "max_gpu_hours", "keep_checkpoints")
"""Settings that may change while a sweep goes on, unless its trials depend on each other."""


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
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings that all trials share, on top of the run's: dotted keys."""
    space: dict[str, dict[str, Any]]
    """Dotted key -> {sampler: arguments}, such as mask.anchor_ratio: {loguniform: [0.02, 0.4]}. Samplers:
    choice and grid [values], uniform and loguniform [low, high], quniform [low, high, step], and randint
    [low, high], without high. A component may be given whole: mask: {grid: [{name: random}, ...]}. With
    when: {key: value}, or a list of values, beside the sampler, a key is searched only where one above it has
    them."""
    metrics: Mapping[str, Literal["max", "min"]]
    """`val/` and a metric of the evaluation -> which values are better. By the first one trials are stopped;
    with several the best are a Pareto front."""
    score: int | Literal["last", "best"] = "last"
    """Of which step the metrics are compared: the last, the best of all, or a number of steps."""
    search: Annotated[Search, ByName(SEARCHES)] = RandomSearch()
    """What proposes settings."""
    scheduler: Annotated[Scheduler, ByName(SCHEDULERS)] = NoScheduler()
    """When a trial is stopped early, or goes on with the weights of another one."""
    from_step: Annotated[int, AtLeast(1)] | None = None
    """Step after which all that is searched acts: the steps until there are trained once, by the run as it
    is, and all trials begin from that checkpoint, its optimizer included. None trains each from its first
    step."""
    num_trials: Annotated[int, AtLeast(1)] | None = None
    """Settings that are tried; None is all of a grid. The same command with more goes on with the sweep."""
    seeds: Annotated[int, AtLeast(1)] = 1
    """Runs of each setting, with seeds from the run's own on; settings are compared by their mean."""
    max_hours: Annotated[float, Above(0)] | None = None
    """After so long no further setting is tried; those that have begun are trained to their end."""
    max_gpu_hours: Annotated[float, Above(0)] | None = None
    """As `max_hours`, of the GPUs that trials held, up to their last results."""
    keep_checkpoints: Literal["all", "best", "none"] = "all"
    """Of which trials the checkpoints stay after their end; `best` is of the best setting so far."""
    seed: int = 0
    """Of the draws from `space`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)
        if not self.metrics:
            raise ValueError("metrics is empty; name one, such as val/tiny_world/knn/acc1: max")
        self.search.check(self.points, self.num_trials)
        for key in self.space:
            for other in self.overrides:
                if f"{other}.".startswith(f"{key}."):
                    raise ValueError(f"space.{key} and overrides.{other} set the same; take one of them out")
        if self.seeds > 1 and "seed" in self.space:
            raise ValueError("seeds trains each setting by several seeds; take seed out of space")
        if self.scheduler.has_population:
            self._check_population()

    def _check_population(self) -> None:
        """Settings of its trials change, and each is one training."""
        if self.seeds > 1:
            raise ValueError(
                f"seeds is {self.seeds}, and trials go on with each other's weights where scheduler.name is "
                f"{self.scheduler.name}; set seeds to 1"
            )
        if self.search.learns:
            raise ValueError(
                f"search.name is {self.search.name}, which learns from what its settings come to, and "
                f"scheduler.name is {self.scheduler.name}, which changes them; set search.name to random"
            )

    @cached_property
    def points(self) -> Space:
        """The space, read."""
        return Space.of(self.space)

    @property
    def total_settings(self) -> int:
        """How many settings are tried, at most."""
        return self.search.total(self.points, self.num_trials)

    @property
    def may_grow(self) -> frozenset[str]:
        """Settings that may change while the sweep goes on; a population has all of its trials at once."""
        return frozenset(MAY_GROW) - ({"num_trials", "seeds"} if self.scheduler.has_population else set())

    @property
    def main_metric(self) -> str:
        """The metric that trials are stopped by."""
        return next(iter(self.metrics))
