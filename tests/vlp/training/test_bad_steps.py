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
from torch import Tensor

from vlp.training.bad_steps import BadStepConfig, StepHistory, Watch


class Judge:
    """A history, and a watch that judges by the same steps on the device: they have to agree."""

    def __init__(self, config: BadStepConfig, history: StepHistory | None = None) -> None:
        self.config, self.history = config, history or StepHistory()
        self.watch = Watch(self.history, config, torch.device("cpu"))

    def __call__(self, loss: float, norm: float) -> bool:
        is_good = self.watch.judge(torch.tensor(loss), torch.tensor(norm), torch.ones(()))
        (outcome,) = self.watch.ask()
        is_bad = self.history.judge(outcome, self.config) is not None
        assert is_good.item() is not is_bad
        return is_bad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_bad(bad: float) -> None:
    for loss, norm in ((bad, 1.0), (1.0, bad)):
        is_bad = Judge(BadStepConfig())
        assert is_bad(loss, norm)
        assert not is_bad(1e30, 1e30)


@pytest.mark.parametrize("window", [4, 5])
def test_a_spike_is_told_by_the_median_of_the_last_good_steps(window: int) -> None:
    """Against a reference that keeps every step."""
    rng = random.Random(0)
    is_bad = Judge(BadStepConfig(spike=2.0, window=window))
    good, found, expected = [], [], []
    for _ in range(300):
        step = [2 ** rng.uniform(-1.5, 1.5) for _ in range(2)]
        step = torch.tensor(step).tolist()
        recent = good[-window:]
        is_spike = len(good) >= window and any(
            value > 2 * median(values) for value, values in zip(step, zip(*recent, strict=True), strict=True)
        )
        if not is_spike:
            good.append(step)
        expected.append(is_spike)
        found.append(is_bad(step[0], step[1]))
    assert found == expected
    assert 10 < sum(found) < 200
    assert is_bad.history.num_skipped == sum(found)


def test_a_history_that_was_saved_goes_on_alike() -> None:
    rng = random.Random(1)
    config = BadStepConfig(spike=1.5, window=4)
    whole = Judge(config)
    for _ in range(40):
        history = StepHistory()
        history.load_state_dict(whole.history.state_dict())
        resumed = Judge(config, history)
        step = 2 ** rng.uniform(-1, 1), 1.0
        assert whole(*step) == resumed(*step)
        assert whole.history == resumed.history


def test_after_a_bad_step_every_other_is_left_out_until_the_device_is_asked() -> None:
    watch = Watch(StepHistory(), BadStepConfig(), torch.device("cpu"))
    nan, inf, one, scaled = (torch.tensor(x) for x in (math.nan, math.inf, 1.0, 1024.0))

    def judge(loss: Tensor, norm: Tensor, scale: Tensor) -> bool:
        return bool(watch.judge(loss, norm, scale))

    assert judge(one, one, scaled)
    assert not judge(one, inf, scaled)  # an overflow, after which the scale is smaller
    assert judge(one, one, scaled)
    assert not judge(nan, one, scaled)
    assert not judge(one, one, scaled)
    assert [math.isnan(outcome.loss) for outcome in watch.ask()] == [False, False, False, True, False]
    assert watch.ask() == []
    assert judge(one, one, one)
    assert not judge(one, inf, one)  # nothing was scaled
    assert not judge(one, one, one)


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
    is_bad = Judge(BadStepConfig())
    for loss in (1.0, math.nan if rank == 1 else 1.0, 1.0):
        print(is_bad(loss, 1.0))
    print(is_bad.history.num_skipped)
    dist.destroy_process_group()


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
