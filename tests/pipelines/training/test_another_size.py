"""A run starts from all weights of one of smaller images and shorter captions (CLIPA, arXiv:2305.07017)."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed

from pipelines.checkpoints.checkpoint import find_checkpoint, load_model, read_run
from pipelines.config.errors import ConfigError
from pipelines.config.machine import CheckpointSettings, MachineConfig
from pipelines.tracking.journal import Journal
from pipelines.training.init_weights import check_fits
from tests.pipelines.runs import fresh_objective, pretrain
from vlp.checkpoint import MODEL
from vlp.objectives.contrastive import Contrastive
from vlp.run import RunConfig

MakeRun = Callable[..., RunConfig]
BEIT = {"name": "beit", "image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
IMAGE, TEXT = "image_encoder.positions", "text_encoder.positions"
LARGER = {
    "image_encoder": {"image_size": 48},
    "tokenizer": {"context_length": 24},
    "mask": {"name": "none"},
    "training": {"length": {"steps": 4}, "batch_size": 6},
}


def train(run: RunConfig, output: Path, **machine: Any) -> str:
    """Train in this process; returns the digest of the weights."""
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name=run.name, tags={})
    return pretrain(run, output, machine=MachineConfig(num_workers=0, **machine), journal=journal).digest


@pytest.fixture
def small(tiny_run: MakeRun, tmp_path: Path) -> Path:
    """Folder of a trained run, of 32 pixels and 16 tokens."""
    train(tiny_run(), tmp_path / "small")
    return tmp_path / "small"


def test_it_starts_with_the_weights_and_with_positions_of_its_own_size(
    small: Path, tiny_run: MakeRun
) -> None:
    trained = load_file(find_checkpoint(small) / MODEL)
    start = fresh_objective(tiny_run(init_from={"path": str(small), "part": "model"}, **LARGER)).state_dict()
    drawn = fresh_objective(tiny_run(**LARGER)).state_dict()
    assert all(torch.equal(start[name], x) for name, x in trained.items() if name not in (IMAGE, TEXT))
    assert torch.equal(start[TEXT], torch.cat([trained[TEXT], drawn[TEXT][16:]]))
    assert torch.equal(start[IMAGE], resample_abs_pos_embed(trained[IMAGE], [6, 6], num_prefix_tokens=1))


def test_a_caption_that_fits_a_shorter_context_is_read_as_before(small: Path, tiny_run: MakeRun) -> None:
    source = {"path": str(small), "part": "model"}
    short = fresh_objective(tiny_run(init_from=source, tokenizer={"context_length": 8})).eval()
    whole, _ = load_model(find_checkpoint(small), torch.device("cpu"))
    assert isinstance(short, Contrastive)
    tokens, lengths = torch.randint(1, 400, (3, 8)), torch.tensor([4, 6, 8])
    with torch.inference_mode():
        torch.testing.assert_close(short.encode_text(tokens, lengths), whole.encode_text(tokens, lengths))


def test_it_goes_on_to_the_bit_after_an_interruption(small: Path, tiny_run: MakeRun, tmp_path: Path) -> None:
    """Also right at the switch, before its first step is saved."""
    run = tiny_run(init_from={"path": str(small), "part": "model"}, **LARGER)
    machine = {"checkpoints": CheckpointSettings(every_steps=1, keep=9)}
    whole = train(run, tmp_path / "whole", **machine)
    for left in (0, 2):
        cut = tmp_path / f"cut-{left}"
        shutil.copytree(tmp_path / "whole", cut)
        (cut / "manifest.json").unlink()
        for step in range(left + 1, 5):
            shutil.rmtree(cut / "checkpoints" / f"step_{step:07d}")
        assert train(run, cut, **machine) == whole
    assert read_run(find_checkpoint(tmp_path / "whole")).image_encoder.image_size == 48


@pytest.mark.parametrize(
    ("changes", "part", "said"),
    [
        (LARGER, "model", None),
        ({"tokenizer": {"context_length": 8}}, "model", None),
        (
            {"image_encoder": {"patch_size": 16}},
            "model",
            "image_encoder.patch_embed.proj.weight is (16, 3, 8",
        ),
        ({"objective": {"text_encoder": {"width": 32}}}, "model", "text_encoder."),
        ({"objective": {"text_encoder": {"width": 32}}}, "image_encoder", None),
    ],
    ids=["larger", "shorter", "patches", "width", "image encoder alone"],
)
def test_whether_it_fits_is_known_before_the_other_is_trained(
    changes: dict[str, Any], part: str, said: str | None, tiny_run: MakeRun
) -> None:
    run = tiny_run(init_from={"path": "later", "part": part}, **changes)
    if said is None:
        check_fits(run, tiny_run())
        return
    with pytest.raises(ConfigError, match=r"^init_from\.run: the weights of tiny do not fit") as raised:
        check_fits(run, tiny_run())
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_relative_positions_are_resized_too(tiny_run: MakeRun) -> None:
    run = tiny_run(init_from={"path": "later"}, image_encoder=BEIT | {"image_size": 48})
    check_fits(run, tiny_run(image_encoder=BEIT))
