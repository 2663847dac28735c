"""Runs of a pipeline that start from the weights of a run before them, as CLIPA's second one does."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig, read_settings
from pipelines.workflow.plan import Plan, check_before_data, started_from
from tests.paths import REPOSITORY

SMALL = {"name": "small", "base": "conf/run/clip.yaml", "image_encoder": {"image_size": 32}}
LARGE = {
    "name": "large",
    "base": "conf/run/clip.yaml",
    "image_encoder": {"image_size": 64},
    "init_from": {"run": "small", "part": "model"},
}


def plan(*entries: dict[str, Any], **settings: Any) -> Plan:
    layers = read_settings([str(REPOSITORY / "conf/pipeline/demo.yaml")])[0]
    encoder = {"patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
    changes = {"runs": list(entries), "baseline": None, "common.image_encoder": encoder}
    return Plan.read(layers.set(changes | settings, "test"))


def checked(plan: Plan) -> Plan:
    plan.check()
    check_before_data(plan, MachineConfig(num_workers=0))
    return plan


def test_each_seed_starts_from_the_same_seed_of_the_other() -> None:
    found = checked(plan(SMALL, LARGE, seeds=2))
    assert found.sources() == {"large": "small", "large-seed1": "small-seed1"}
    large = found.runs(Path("shards"), Path("tables"))[1]
    assert large.image_encoder.image_size == 64
    assert large.init_from is not None
    assert large.init_from.part == "model"
    started = started_from(large, Path("there")).init_from
    assert started is not None
    assert started.path == Path("there")


def test_the_recipe_of_clipa_goes_on_from_its_first_run() -> None:
    layers, _ = read_settings([str(REPOSITORY / "conf/pipeline/clipa.yaml")])
    found = Plan.read(layers)
    small, large = found.runs(Path("shards"), Path("tables"))
    check_before_data(found, MachineConfig(num_workers=0))
    assert found.sources() == {"clipa_tuning": "clipa"}
    assert (small.image_encoder.image_size, large.image_encoder.image_size) == (112, 224)
    assert small.learning_rate(781) == pytest.approx(2.048e-3)
    assert large.learning_rate(3071) == pytest.approx(2.56e-5)
    assert large.num_steps == 131_000_000 // 8192


@pytest.mark.parametrize(
    ("entries", "settings", "said"),
    [
        ((LARGE, SMALL), {}, "init_from.run of large: no run before it is named small; name one"),
        ((SMALL, LARGE | {"init_from": {"run": "smal"}}), {}, "named smal; did you mean small?"),
        ((SMALL, LARGE), {"only": ["large"]}, "only: large starts from the weights of small; add small"),
        (
            (SMALL, LARGE | {"image_encoder": {"image_size": 64, "width": 32}}),
            {},
            "large: init_from.run: the weights of small do not fit model: of another shape: ",
        ),
        (
            (SMALL, LARGE | {"image_encoder": {"image_size": 60}}),
            {},
            "image_size 60 is not a multiple of patch_size 8",
        ),
        (
            (SMALL, LARGE | {"init_from": {"run": "small", "parts": 1}}),
            {},
            "init_from.parts is not a setting",
        ),
    ],
)
def test_a_run_that_cannot_start_is_named_before_any_work(
    entries: tuple[dict[str, Any], ...], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as raised:
        checked(plan(*entries, **settings))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_the_second_run_is_trained_from_the_first(tmp_path: Path) -> None:
    """By a rate so low that its weights stay those that it began with."""
    text = {"embed_dim": 8, "text_encoder": {"width": 16, "depth": 1, "num_heads": 2}}
    encoder = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
    runs = [
        one | {"objective": text, "image_encoder": encoder | one["image_encoder"]} for one in (SMALL, LARGE)
    ]
    runs[1] |= {"optimizer": {"lr": 1e-12}}
    common = {"training": {"length": {"steps": 2}, "batch_size": 16, "precision": "fp32"}}
    pipeline = {
        "name": "two",
        "corpus": {"name": "tiny_world", "num_train": 40, "num_heldout": 8, "image_size": 64},
        "download": {"image_size": 64, "number_sample_per_shard": 40},
        "docfreq": {"tokenizer": {"name": "clip_bpe", "context_length": 16}},
        "common": common | {"lr_schedule": {"warmup_steps": 0}},
        "runs": runs,
    }
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(pipeline))
    here = ["machine.num_workers=0", "machine.data_workers=0", f"machine.storage={tmp_path / 'results'}"]
    command = [sys.executable, "-m", "pipelines", "run", str(tmp_path / "two.yaml"), *here]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (
        load_file(next(tmp_path.glob(f"results/two/pretrain/{name}-*/checkpoints/step_*/model.safetensors")))
        for name in ("small", "large")
    )
    assert first.keys() == second.keys()
    resized = {name for name in first if first[name].shape != second[name].shape}
    assert resized == {"image_encoder.positions"}
    assert all(first[name].allclose(second[name], atol=1e-9) for name in first.keys() - resized)
