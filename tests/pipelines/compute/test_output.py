"""What Ray tells by itself reaches the terminal, but for what a command says in a line of its own."""

import os
from typing import Any

import pytest
import ray
from ray._private import worker
from ray.exceptions import WorkerCrashedError

from pipelines.compute.output import OF_A_DEATH
from tests.waiting import wait_until


@ray.remote
def die() -> None:
    os._exit(1)


@pytest.mark.usefixtures("ray_cluster")
def test_of_the_death_of_a_worker_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []
    tell = worker.print_to_stdstream

    def listen(data: dict[str, Any], ignore_prefix: bool) -> None:
        tell(data, ignore_prefix)
        heard.extend(data["lines"])

    monkeypatch.setattr(worker, "print_to_stdstream", listen)
    with pytest.raises(WorkerCrashedError):
        ray.get(die.options(max_retries=0).remote())
    wait_until(lambda: any(line.startswith(OF_A_DEATH) for line in heard))
    tell({"lines": ["memory is short"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    said = "".join(capfd.readouterr())
    assert "memory is short" in said
    assert OF_A_DEATH not in said
