"""`make chaos`: each part of a cluster is killed in turn during a pipeline; what was lost, how long it took.

A head with what it remembers on disk, two nodes with a training worker each, MLflow with users on PostgreSQL,
and an object store that holds all results. Whoever looks after such a cluster starts again what has died
DOWN_SECONDS later; of the pipeline itself only the driver is started again, by the same command. In the end
all results are compared with those of the same pipeline left alone on one machine.

    python -m tests.chaos.drill                    all victims
    python -m tests.chaos.drill worker driver      some of them
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.place import STEPS, Place, Run, calm_run, digests, opened, place, until
from tests.servers.processes import kill_tree

DOWN_SECONDS = 10.0
"""What a supervisor takes to start a server again."""
PATIENCE = 600.0
STEPS_BETWEEN = 5
"""Of calm training, before the next part is killed."""


@dataclass(frozen=True)
class Victim:
    """A part of the cluster."""

    kill: Callable[[Place], None]
    start_again: Callable[[Place], None]
    """What whoever looks after it does."""
    comes_back: str
    """By whom it is started again, as the table says."""
    works_again: Callable[[Place, int], bool]
    """Whether all is as before, for a step that the training had reached when it was killed."""


@dataclass(frozen=True)
class Outcome:
    """What became of the pipeline."""

    victim: str
    at_step: int
    comes_back: str
    seconds: float
    """From the kill until all worked again."""
    repeated: int
    """Steps that were done again."""
    meanwhile: int
    """Steps that were done before all worked again, without those."""


def trains_on(it: Place, step: int) -> bool:
    """The training goes beyond the step that it had reached."""
    if it.run.has_ended():  # its cluster took it along
        it.run.start()
    return it.run.step() > step


def is_delivered(it: Place, step: int) -> bool:
    """MLflow has the step, and what came after it."""
    return max(it.delivered(), default=0) > step


def kill_worker(it: Place) -> None:
    it.training_workers()[-1].kill()


def kill_node(it: Place) -> None:
    kill_tree(it.ray.nodes[-1])


def kill_head(it: Place) -> None:
    assert it.ray.head is not None
    kill_tree(it.ray.head)


def kill_driver(it: Place) -> None:
    assert it.run.process is not None
    it.run.process.kill()


def nothing(it: Place) -> None:
    """It comes back by itself."""


VICTIMS: Mapping[str, Victim] = {
    "worker": Victim(kill_worker, nothing, "by itself", trains_on),
    "node": Victim(kill_node, lambda it: void(it.ray.add_node()), "another node joins", trains_on),
    "driver": Victim(kill_driver, lambda it: it.run.start(), "by the same command", trains_on),
    "head": Victim(kill_head, lambda it: it.ray.start_head(), "the head is started again", trains_on),
    "MLflow": Victim(
        lambda it: it.mlflow.stop(), lambda it: it.mlflow.start(), "it is started again", is_delivered
    ),
    "PostgreSQL": Victim(
        lambda it: it.postgres.kill(), lambda it: it.postgres.start(), "it is started again", is_delivered
    ),
    "store": Victim(
        lambda it: it.store.fall_silent(),
        lambda it: it.store.speak_again(),
        "it answers again",
        lambda it, step: it.saved() > step,
    ),
}
"""By name, in the order they are killed."""


def void(_: object) -> None:
    """Nothing of what was made is needed."""


def strike(it: Place, name: str) -> Outcome:
    """Kill one part, have it come back, and wait until all works again."""
    victim, reached = VICTIMS[name], it.run.step()
    until(lambda: it.run.step() > reached + STEPS_BETWEEN, seconds=PATIENCE, what=f"training before {name}")
    at_step, done = it.run.step(), len(it.run.steps())
    assert at_step < STEPS, f"the training was over before {name} could be killed; raise STEPS"
    print(f"[chaos] {name}: killed after step {at_step}", flush=True)
    start = time.monotonic()
    victim.kill(it)
    if victim.start_again is not nothing:
        time.sleep(DOWN_SECONDS)
        victim.start_again(it)
    until(lambda: victim.works_again(it, at_step), seconds=PATIENCE, what=f"{name} works again")
    seconds = time.monotonic() - start
    since = it.run.steps()[done:]
    repeated = sum(step <= at_step for step in since)
    print(f"[chaos] {name}: works again after {seconds:.1f} s", flush=True)
    return Outcome(name, at_step, victim.comes_back, seconds, repeated, len(since) - repeated)


def losses(it: Place, calm: Run) -> list[str]:
    """Everything that is not as it is where nothing was killed; a line each."""
    expected, found = digests(opened(calm.work)), digests(it.storage)
    lost = [f"{stage}: another result" for stage, digest in expected.items() if found.get(stage) != digest]
    times = Counter(it.delivered())
    lost += [f"MLflow: step {step} {times[step]} times" for step in range(1, STEPS + 1) if times[step] != 1]
    if Counter(it.run.steps()).keys() != set(range(1, STEPS + 1)):
        lost.append("the journal lacks steps")
    return lost + unreadable_models(it)


def unreadable_models(it: Place) -> list[str]:
    """The model that MLflow shows has to be there with its weights."""
    experiment = it.client.get_experiment_by_name("chaos")
    assert experiment is not None
    models = it.client.search_logged_models([experiment.experiment_id])
    if [model.tags["step"] for model in models] != [str(STEPS)]:
        return [f"MLflow: models of the steps {[model.tags['step'] for model in models]}"]
    return []


def table(outcomes: Sequence[Outcome]) -> str:
    """In Markdown."""
    rows = ["| killed | after step | comes back | works again after | steps done again | steps meanwhile |"]
    rows.append("|---|---|---|---|---|---|")
    for one in outcomes:
        cells = (one.victim, one.at_step, one.comes_back, f"{one.seconds:.0f} s", one.repeated, one.meanwhile)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def drill(names: Sequence[str]) -> tuple[list[Outcome], list[str]]:
    """What became of the pipeline for each victim, and what was lost in the end."""
    with place() as it:
        start = time.monotonic()
        it.run.start()
        until(lambda: it.run.step() > 0 or it.run.has_ended(), seconds=PATIENCE, what="training begins")
        outcomes = [strike(it, name) for name in names]
        it.run.finish()
        print(f"[chaos] the pipeline ended after {time.monotonic() - start:.0f} s", flush=True)
        until(lambda: len(it.delivered()) >= STEPS, seconds=PATIENCE, what="MLflow has all steps")
        return outcomes, losses(it, calm_run(Path(it.folder) / "calm"))


def main(names: Sequence[str]) -> int:
    """The exit code: 1 if anything was lost."""
    if unknown := set(names) - VICTIMS.keys():
        sys.exit(f"no victim is called {', '.join(unknown)}; valid: {', '.join(VICTIMS)}")
    outcomes, lost = drill(names or list(VICTIMS))
    print(table(outcomes))
    print("\nlost:", *(lost or ["nothing: shards, frequencies, weights, metrics, steps, model"]), sep="\n  ")
    print(f"on {os.cpu_count()} cores, with a load of {os.getloadavg()[0]:.0f} in the end")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
