"""Training commands of open_clip become runs that can be trained."""

import shlex
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from click.testing import CliRunner
from open_clip_train.params import parse_args

from pipelines.commands.main import main
from pipelines.config.errors import UserError
from pipelines.config.machine import read_settings
from pipelines.config.open_clip import REMEDIES, SETTINGS, translate
from pipelines.config.settings import Layers, build, to_dict
from vlp.masking.random import RandomMask
from vlp.run import RunConfig

COMMAND = """
torchrun --nproc_per_node 4 -m open_clip_train.main --train-data 'cc12m/{00000..01242}.tar'
    --model ViT-B-16
    --train-num-samples 10968539 --batch-size 256 --accum-freq 2 --precision amp_bf16 --lr 1e-3 --wd 0.1
    --warmup 2000 --epochs 8 --force-patch-dropout 0.5 --workers 6 --grad-checkpointing
    --gather-with-grad --imagenet-val imagenet
"""


def run_of(command: str, folder: Path) -> RunConfig:
    """The run that `vlp pretrain` would train by the file."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(translate(shlex.split(command)).settings))
    return build(RunConfig, read_settings([str(file)])[0])


def test_a_command_becomes_the_run_with_its_sizes_rates_and_length(tmp_path: Path) -> None:
    run = run_of(COMMAND, tmp_path)
    assert run.training.batch_size == 256 * 4 * 2
    assert run.training.length.steps == 8 * -(-10968539 // 2048)
    assert (run.optimizer.lr, run.optimizer.weight_decay) == (1e-3, 0.1)
    assert (run.training.precision, run.lr_schedule.warmup_steps) == ("bf16", 2000)
    assert run.mask == RandomMask(mask_ratio=0.5)
    assert run.image_encoder.patch_size == 16
    assert str(run.data.shards) == "cc12m"
    _, machine = read_settings([str(tmp_path / "run.yaml")])
    assert (machine.num_workers, machine.memory.batch_parts, machine.loader_workers) == (4, 2, 6)
    assert machine.memory.checkpoint_activations


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    remarks = translate(shlex.split(COMMAND)).remarks
    assert [remark.partition(":")[0] for remark in remarks] == ["--gather-with-grad", "--imagenet-val"]
    said = CliRunner().invoke(
        main, ["from-open-clip", "-o", str(tmp_path / "run.yaml"), *shlex.split(COMMAND)]
    )
    assert said.exit_code == 0
    assert "no counterpart: --imagenet-val: `evaluation.classification.imagenet=FOLDER`" in said.output


def test_every_flag_of_open_clip_has_its_line() -> None:
    flags = set(vars(parse_args([])))
    assert flags == SETTINGS.keys() | REMEDIES.keys()
    assert not SETTINGS.keys() & REMEDIES.keys()


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu", "ViT-L-14", "ViT-B-16-plus-240"])
def test_a_model_has_as_many_weights_as_there(name: str, tmp_path: Path) -> None:
    run = run_of(f"--model {name} --train-num-samples 1000000", tmp_path)
    vocabulary = run.vocabulary(run.tokenizer.build())
    with torch.device("meta"):  # sizes alone
        model, theirs = run.build(vocabulary), open_clip.create_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())


def named(model: str, **settings: Any) -> RunConfig:
    """A run whose file says `model:`."""
    layers = Layers().add({"name": "mine", "model": model} | settings, "run.yaml")
    return build(RunConfig, layers)


def test_the_name_of_a_model_fills_the_sizes_of_both_towers_below_a_runs_own(tmp_path: Path) -> None:
    clip = {"objective": {"name": "contrastive"}}
    expected = run_of("--model ViT-L-14-quickgelu --train-num-samples 1000000", tmp_path)
    run = named("ViT-L-14-quickgelu", **clip)
    assert (run.image_encoder, run.objective) == (expected.image_encoder, expected.objective)
    smaller = clip["objective"] | {"embed_dim": 8}
    own = named("ViT-B-32", image_encoder={"image_size": 288}, objective=smaller)
    assert (own.image_encoder.image_size, own.image_encoder.patch_size) == (288, 32)
    assert to_dict(own.objective)["embed_dim"] == 8
    assert named("ViT-B-32", objective={"name": "superclass"}).image_encoder.patch_size == 32


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("ViT-B-33", "run.yaml: model ViT-B-33 is not a model of open_clip; did you mean ViT-B-32?"),
        ("RN50", "run.yaml: model RN50 has a ResNet as its image tower, which has no counterpart"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(model: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        named(model, objective={"name": "contrastive"})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--model RN50 --train-num-samples 1", "--model RN50 has a ResNet as its image tower"),
        ("--model ViT-B-16-SigLIP --train-num-samples 1", "--model ViT-B-16-SigLIP has custom_text"),
        ("--model ViT-B-23 --train-num-samples 1", "is not a model of open_clip; did you mean"),
        ("--model ViT-B-32", "--train-num-samples is missing"),
        (
            "--modell ViT-B-32",
            "these are no arguments of open_clip's training: unrecognized arguments: --modell",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(command: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        translate(shlex.split(command))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
