"""Which checkpoints of trials stay on disk."""

import shutil

from pipelines.sweeps.conductor import Conductor
from pipelines.sweeps.history import History, Run
from pipelines.sweeps.report import Outcome
from pipelines.training.job import CHECKPOINTS


def drop_checkpoints(conductor: Conductor) -> None:
    """Delete the checkpoints of trials that have ended and need not stay, as `keep_checkpoints` says."""
    config, trials, history = conductor.config, conductor.trials, conductor.history
    if config.keep_checkpoints == "all":
        return
    is_best_kept = config.keep_checkpoints == "best"
    kept = {one.number for one in Outcome.of(config, trials, history).best} if is_best_kept else set()
    needed = conductor.needed_folders()
    for run, trace in history.runs.items():
        # A setting that other seeds are still to train may become the best.
        is_undecided = is_best_kept and trace.is_finished and not _is_done(history, run.setting, config.seeds)
        former = {history.folder_of(run, at_step=copy.step) for copy in trace.copies}
        is_free = not trace.is_open and run.setting not in kept and not is_undecided
        for folder in former | ({history.folder_of(run)} if is_free else set()):
            if folder not in needed:
                shutil.rmtree(trials.output(folder) / CHECKPOINTS, ignore_errors=True)
                if there := trials.machine.published(trials.output(folder)):
                    there.delete_folder(CHECKPOINTS)


def _is_done(history: History, setting: int, seeds: int) -> bool:
    """Whether a setting needs no further training."""
    of_setting = [history.trace(Run(setting, seed)) for seed in range(seeds)]
    is_stopped = any(trace.stopped_at is not None for trace in of_setting)
    return is_stopped or all(trace.is_finished for trace in of_setting)
