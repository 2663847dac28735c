"""Runs whose image encoder is a model of timm, by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig, MemorySettings
from pipelines.config.settings import Layers, build, to_dict
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from tests.pipelines.runs import fresh_objective, pretrain
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]
MACHINE = MachineConfig(num_workers=0)


def with_encoder(run: RunConfig, model: str, **changes: Any) -> RunConfig:
    """The same run with another encoder, whose settings are other ones."""
    encoder = {"name": "timm", "model": model, "image_size": 64}
    settings = to_dict(run) | {"image_encoder": encoder} | changes
    return build(RunConfig, Layers().add(settings, "test"))


def train(run: RunConfig, output: Path) -> Path:
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    pretrain(run, output, machine=MACHINE, journal=journal)
    return find_checkpoint(output)


def test_a_run_trains_a_vit_with_half_of_its_patches_left_out_and_resnet_without_a_mask(
    tiny_run: MakeRun, tmp_path: Path
) -> None:
    half, none = {"name": "random", "mask_ratio": 0.5}, {"name": "none"}
    for model, mask in (("test_vit", half), ("test_resnet", none)):
        run = with_encoder(tiny_run(), model, mask=mask)
        trained, read = load_model(train(run, tmp_path / model), torch.device("cpu"))
        assert read.image_encoder == run.image_encoder
        fresh = fresh_objective(run).state_dict()
        same = [name for name, x in trained.state_dict().items() if torch.equal(x, fresh[name])]
        assert [name for name in same if name.startswith("image_encoder")] == []


@pytest.mark.parametrize(
    ("changes", "memory", "said"),
    [
        (
            {"mask": {"name": "random"}},
            {},
            "timm test_resnet needs all of them; choose mask none",
        ),
        ({"objective": {"name": "simmim"}, "mask": {"name": "random"}}, {}, "timm test_resnet takes none"),
        (
            {},
            {"batch_parts": 2},
            "machine.memory.batch_parts: image_encoder timm test_resnet has",
        ),
        ({}, {"checkpoint_activations": True}, "machine.memory.checkpoint_activations: image_encoder timm"),
    ],
)
def test_what_a_resnet_cannot_is_refused_in_one_line_before_the_start(
    changes: dict[str, Any], memory: dict[str, Any], said: str, tiny_run: MakeRun
) -> None:
    def start() -> None:
        run = with_encoder(tiny_run(), "test_resnet", **({"mask": {"name": "none"}} | changes))
        resolve(run, MachineConfig(num_workers=0, memory=MemorySettings(**memory)))

    with pytest.raises(ConfigError) as raised:
        start()
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
