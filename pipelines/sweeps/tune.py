"""Ray Tune as the hands of a sweep: it starts and ends the processes of trials; the conductor decides."""

import os
import shutil
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pipelines.sweeps.conductor import Conductor
from pipelines.sweeps.history import Run
from pipelines.sweeps.live import Live
from pipelines.sweeps.retention import drop_checkpoints
from pipelines.sweeps.room import DRIVER_CPUS
from pipelines.sweeps.trial import AGAIN, FAILURE, MEASURED, Trials, run_trial
from pipelines.tracking.delivery import load_store


def run_trials(conductor: Conductor, *, at_once: int) -> None:
    """Run trials until none is left, or the process is interrupted; both return."""
    load_store()  # Ray Tune imports MLflow where it begins
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # with a traceback; `Ends` says it
    trials = conductor.trials
    storage = trials.folder / "tune"
    shutil.rmtree(storage, ignore_errors=True)  # the history is what a sweep goes on by
    trainable = tune.with_resources(tune.with_parameters(run_trial, trials=trials), _place(trials))
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=Proposals(conductor),
            scheduler=Decisions(conductor),
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name=f"process-{os.getpid()}",
            storage_path=str(storage),
            verbose=0,
            callbacks=[Ends(conductor)],
            failure_config=tune.FailureConfig(max_failures=trials.machine.recovery.max_failures),
        ),
    ).fit()


def _place(trials: Trials) -> dict[str, float]:
    """What a trial's own process needs: where each node has its own disk, that of this one, which has the
    record."""
    if trials.machine.published(trials.folder) is None:
        return {"cpu": DRIVER_CPUS}
    here = ray.get_runtime_context().get_node_id()
    address = next(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here)
    return {"cpu": 0, f"node:{address}": 0.001}


class Proposals(Searcher):
    """Hands out the runs that the conductor names."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self.conductor = conductor

    def __deepcopy__(self, memo: Any) -> "Proposals":
        return self  # Ray Tune copies what it is given; there is but one conductor

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        run = self.conductor.next_run()
        if run is None:
            return Searcher.FINISHED
        if isinstance(run, str):
            return None
        return self.conductor.stretch(run)._asdict() | {"run": list(run)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class Decisions(FIFOScheduler):
    """Hands results to the conductor, and has the runs end that it ends."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self.conductor = conductor
        self.live = Live(conductor)

    def __deepcopy__(self, memo: Any) -> "Decisions":
        return self  # as above

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        run = run_of(trial)
        if FAILURE in result:
            self.conductor.failed(run, result[FAILURE])
            return TrialScheduler.STOP
        if "step" not in result:  # the end of a trial, as Ray Tune says it
            return TrialScheduler.CONTINUE
        metrics = {key: value for key, value in result.items() if key.startswith(MEASURED)}
        is_new = result["step"] not in self.conductor.history.trace(run).results
        stops = self.conductor.measured(run, result["step"], metrics)
        if is_new:
            self.live.show(run)
        if stops and AGAIN in result:
            return TrialScheduler.STOP
        if stops:
            self.conductor.trials.ask_to_stop(trial.config["folder"])
        return TrialScheduler.CONTINUE


class Ends(Callback):
    """Tells the conductor of ends, and closes a trial's record: its own process may have been killed."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run = run_of(trial)
        self.conductor.ended(run)
        close_trial(self.conductor, run)
        drop_checkpoints(self.conductor)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        print(f"[sweep] the process of trial {run_of(trial).key} died; it goes on in another", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.conductor.failed(run_of(trial), "its process died too often")
        close_trial(self.conductor, run_of(trial))


def close_trial(conductor: Conductor, run: Run) -> None:
    """End the record of a trial by what became of it."""
    trace, journal = conductor.history.trace(run), conductor.trials.journal_of(run)
    if journal.first("begin") is None:
        return  # its process ended before it said anything
    if trace.failure is not None:
        journal.end("FAILED")
    elif not trace.is_open:
        journal.tags({"stop_reason": "scheduler" if trace.stopped_at else "finished"})
        journal.end("FINISHED")
    else:
        journal.end("KILLED")


def run_of(trial: Any) -> Run:
    """The run that a trial of Ray Tune is."""
    return Run(*trial.config["run"])
