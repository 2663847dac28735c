"""What the driver of a sweep says and records while trials run."""

from typing import Any

from ray.tune import Callback

from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.trial import Search


class FollowTrials(Callback):
    """Prints every result, and closes a trial's record: the scheduler kills the process that wrote it."""

    def __init__(self, config: SweepConfig, search: Search) -> None:
        self.metric = config.metric
        self.num_trials = config.total_trials
        self.search = search

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any
    ) -> None:
        done = sum(trial.is_finished() for trial in trials)
        setting = self.search.label(trial.config)
        score = f"{self.metric} {result[self.metric]:.4f}" if self.metric in result else "no score yet"
        print(
            f"[sweep] {done}/{self.num_trials} trials done; {setting}: step {result.get('step')}, {score}",
            flush=True,
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        journal = self.search.trial_journal(trial.trial_id)
        steps = self.search.config(trial.config).num_masked_steps
        stopped_early = trial.last_result.get("step", 0) < steps
        journal.tags({"stop_reason": "scheduler" if stopped_early else "finished"})
        journal.end("FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.search.trial_journal(trial.trial_id).end("FAILED")
