"""Which steps are bad: told alike by all workers, and by what the run has seen so far."""

import math
import random
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch
import torch.distributed as dist

from vlp.training.bad_steps import BadStepConfig, Outcome, StepHistory
from vlp.training.step import NO_SCALING


def judge(history: StepHistory, loss: float, norm: float, config: BadStepConfig) -> bool:
    outcome = Outcome.ask(torch.tensor(loss), torch.tensor(norm), NO_SCALING)
    return history.judge(outcome, config) is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_bad(bad: float) -> None:
    for loss, norm in ((bad, 1.0), (1.0, bad)):
        history = StepHistory()
        assert judge(history, loss, norm, BadStepConfig())
        assert not judge(history, 1e30, 1e30, BadStepConfig())


def test_a_spike_is_told_by_the_median_of_the_last_good_steps() -> None:
    """Against a reference that keeps every step."""
    rng = random.Random(0)
    config = BadStepConfig(spike=2.0, window=5)
    history, good, found, expected = StepHistory(), [], [], []
    for _ in range(300):
        drawn = [2 ** rng.uniform(-1.5, 1.5) for _ in range(2)]
        loss, norm = torch.tensor(drawn).tolist()
        step = (loss, norm)
        recent = good[-5:]
        is_bad = len(good) >= 5 and any(
            value > 2 * median(values) for value, values in zip(step, zip(*recent, strict=True), strict=True)
        )
        if not is_bad:
            good.append(step)
        expected.append(is_bad)
        found.append(judge(history, loss, norm, config))
    assert found == expected
    assert 10 < sum(found) < 200
    assert history.num_skipped == sum(found)


def test_a_history_that_was_saved_goes_on_alike() -> None:
    rng = random.Random(1)
    config = BadStepConfig(spike=1.5, window=4)
    whole = StepHistory()
    for _ in range(40):
        resumed = StepHistory()
        resumed.load_state_dict(whole.state_dict())
        step = 2 ** rng.uniform(-1, 1), 1.0
        assert judge(whole, *step, config) == judge(resumed, *step, config)
        assert whole == resumed


def test_workers_decide_alike(tmp_path: Path) -> None:
    """Only one of two sees the bad loss."""
    processes = [
        subprocess.Popen([sys.executable, __file__, str(i), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert said == [["False", "True", "False", "1"]] * 2


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    history = StepHistory()
    for loss in (1.0, math.nan if rank == 1 else 1.0, 1.0):
        print(judge(history, loss, 1.0, BadStepConfig()))
    print(history.num_skipped)
    dist.destroy_process_group()


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
