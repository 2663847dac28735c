"""How many trials nodes have room for."""

import pytest

from pipelines.config.errors import ConfigError, UserError
from pipelines.config.machine import MachineConfig
from pipelines.sweeps.room import check_trains_under_ray, trials_at_once


@pytest.mark.parametrize(
    ("settings", "nodes", "trials"),
    [
        ({"num_workers": 1}, [{"CPU": 3}], 2),  # two workers, and the trials' own processes on the third
        ({"num_workers": 1}, [{"CPU": 2}], 1),
        ({"num_workers": 1}, [{"CPU": 1.1}], 1),
        ({"num_workers": 2}, [{"CPU": 3}], 1),
        ({"num_workers": 2, "cpus_per_worker": 2}, [{"CPU": 3}, {"CPU": 3}], 1),  # a CPU of each is left
        ({"num_workers": 1, "use_gpu": True}, [{"CPU": 64, "GPU": 4}], 4),
        ({"num_workers": 2, "use_gpu": True}, [{"CPU": 64, "GPU": 1}, {"CPU": 64, "GPU": 2}], 1),
        ({"num_workers": 1, "cpus_per_worker": 8, "use_gpu": True}, [{"CPU": 16, "GPU": 8}], 1),
        ({"num_workers": 1, "cpus_per_worker": 8, "use_gpu": True}, [{"CPU": 17, "GPU": 8}], 2),
        ({"num_workers": (1, 4)}, [{"CPU": 9}], 2),
        ({"num_workers": (1, 4)}, [{"CPU": 3}], 1),  # fewer workers than it might have
    ],
)
def test_trials_and_their_workers_fit_on_the_nodes(settings, nodes, trials) -> None:
    assert trials_at_once(MachineConfig(**settings), nodes) == trials


@pytest.mark.parametrize(
    ("settings", "nodes", "said"),
    [
        ({"num_workers": 1}, [{"CPU": 1}], r"1 x 1 CPUs for its workers .* 0\.1 CPUs for itself"),
        ({"num_workers": 1, "cpus_per_worker": 4}, [{"CPU": 3}, {"CPU": 3}], r"have room for 0 workers"),
        ({"num_workers": 3, "use_gpu": True}, [{"CPU": 9, "GPU": 2}], r"3 x 1 GPUs .* room for 2 workers"),
    ],
)
def test_what_can_never_run_is_refused_with_the_arithmetic(settings, nodes, said) -> None:
    with pytest.raises(UserError, match=said):
        trials_at_once(MachineConfig(**settings), nodes)


def test_training_in_this_process_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"machine\.num_workers is 0"):
        check_trains_under_ray(MachineConfig(num_workers=0))
