"""Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), by Optuna."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pipelines.sweeps.samplers import Place, Sampler
from pipelines.sweeps.search.search import SEARCHES, Proposal, Search, Tried
from vlp.core.config import AtLeast

LAST = 1.0 - 2**-53
"""The last place of a range."""


@SEARCHES.register
@dataclass(frozen=True, kw_only=True)
class TPESearch(Search):
    """Proposes what is likely to be among the best, by what was tried.

    Optuna is told everything anew for each proposal: it keeps no state that an interrupt could lose.
    """

    name: Literal["tpe"] = "tpe"
    learns: ClassVar = True
    num_random: Annotated[int, AtLeast(1)] = 10
    """Settings that are drawn at random before."""

    def propose(self, asked: Proposal) -> dict[str, Place]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.num_random, constant_liar=True, seed=asked.seed % 2**32
        )
        directions: list[Any] = ["maximize" if way == "max" else "minimize" for way in asked.directions]
        study = optuna.create_study(directions=directions, sampler=sampler)
        samplers = asked.space.samplers
        ranges = {key: _distribution(one) for key, one in samplers.items()}
        for one in asked.tried:
            if (trial := _told(one, ranges, is_single=len(directions) == 1)) is not None:
                study.add_trial(trial)
        trial, point = study.ask(), dict[str, Place]()
        for key, one in samplers.items():
            if asked.space.is_active(key, point):
                point[key] = (
                    trial.suggest_float(key, 0.0, LAST)
                    if one.num_values is None
                    else trial.suggest_categorical(key, range(one.num_values))
                )
        return point


def _distribution(sampler: Sampler) -> Any:
    """The places of a sampler: values of a list have no order."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if sampler.num_values is not None:
        return CategoricalDistribution(range(sampler.num_values))
    return FloatDistribution(0.0, LAST)


def _told(one: Tried, ranges: dict[str, Any], *, is_single: bool) -> Any:
    """What was tried, as Optuna has it; None for what was stopped early where there are several metrics."""
    from optuna.trial import TrialState, create_trial

    what: dict[str, Any] = {
        "params": dict(one.point),
        "distributions": {key: places for key, places in ranges.items() if key in one.point},
    }
    if one.scores is not None:
        return create_trial(state=TrialState.COMPLETE, values=list(one.scores), **what)
    if one.is_open:
        return create_trial(state=TrialState.RUNNING, **what)
    if is_single and one.curve:
        return create_trial(state=TrialState.PRUNED, intermediate_values=dict(one.curve), **what)
    return None
