"""Which checkpoints of trials stay on disk."""

import shutil

from pipelines.sweeps.history import History
from pipelines.sweeps.report import Outcome
from pipelines.sweeps.settings import SweepConfig
from pipelines.sweeps.trial import Trials
from pipelines.training.job import CHECKPOINTS


def drop_checkpoints(config: SweepConfig, trials: Trials, history: History) -> None:
    """Delete the checkpoints of trials that have ended and need not stay, as `keep_checkpoints` says."""
    if config.keep_checkpoints == "all":
        return
    is_best_kept = config.keep_checkpoints == "best"
    kept = {one.number for one in Outcome.of(config, trials, history).best} if is_best_kept else set()
    for run, trace in history.runs.items():
        # A setting that other seeds are still to train may become the best.
        is_undecided = is_best_kept and trace.is_finished and not _is_done(history, run.setting, config.seeds)
        if not trace.is_open and run.setting not in kept and not is_undecided:
            shutil.rmtree(trials.output(run) / CHECKPOINTS, ignore_errors=True)


def _is_done(history: History, setting: int, seeds: int) -> bool:
    """Whether a setting needs no further training."""
    of_setting = [trace for run, trace in history.runs.items() if run.setting == setting]
    is_stopped = any(trace.stopped_at is not None for trace in of_setting)
    return is_stopped or sum(trace.is_finished for trace in of_setting) >= seeds
