"""Modules of one's own, named in settings, add classes to the choices; their content is part of a run."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import vlp
from pipelines.checkpoints.checkpoint import Contents, TrainingState, load_model, save_checkpoint
from pipelines.commands.schemas import parse_any
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig, read_settings
from pipelines.config.settings import Layers, build, to_dict
from pipelines.evaluation.evaluate import EvaluateConfig
from pipelines.shards.docfreq import DocfreqConfig
from pipelines.sweeps.checks import check_sweep, planned_evaluation, with_evaluation
from pipelines.sweeps.settings import SweepConfig
from pipelines.training.claim import check_same_run, claim
from pipelines.training.resolved import resolve
from pipelines.workflow.plan import LATER, PipelineConfig, Plan
from tests.paths import REPOSITORY
from tests.pipelines.runs import IN_THIS_PROCESS, random_objective, run_identity
from tests.plugin_package import forgotten, write_package
from vlp.checkpoint import SETTINGS
from vlp.masking import STRATEGIES
from vlp.objectives import OBJECTIVES
from vlp.run import RunConfig
from vlp.training.optim import build_optimizer

RUN = str(REPOSITORY / "conf/run/clip.yaml")
MASKS = "plugins=[my_package.masks]"


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a package, which is the current one; what it registers is forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(write_package(tmp_path))
    with forgotten():
        yield tmp_path


def run_of(*arguments: str) -> RunConfig:
    return build(RunConfig, read_settings(arguments)[0])


def test_a_class_of_a_plug_in_is_a_choice_where_the_plug_in_is_named() -> None:
    with pytest.raises(ConfigError, match=r"mask\.name is 'checkerboard'; valid: adaptive, attention, block"):
        run_of(RUN, "mask.name=checkerboard")
    run = run_of(RUN, "mask.name=checkerboard", MASKS)
    assert (run.mask.name, run.plugins) == ("checkerboard", ("my_package.masks",))
    with pytest.raises(ConfigError, match=r"mask\.name is 'chekerboard'; did you mean checkerboard\?"):
        run_of(RUN, "mask.name=chekerboard", MASKS)
    with pytest.raises(
        ConfigError, match=r"mask\.name is 'x'; valid: adaptive, attention, block, checkerboard"
    ):
        run_of(RUN, "mask.name=x", MASKS)


def test_the_plug_ins_of_files_and_overrides_add_up(package: Path) -> None:
    (package / "a.yaml").write_text("plugins: [my_package.masks]\nmask: {name: checkerboard}\n")
    (package / "b.yaml").write_text("plugins: [my_package.objectives, my_package.masks]\n")
    run = run_of(RUN, "a.yaml", "b.yaml", "objective={name: mean_colour, scale: 2}", "plugins=[my_package]")
    assert run.plugins == ("my_package.masks", "my_package.objectives", "my_package")
    assert run.objective == OBJECTIVES["mean_colour"](scale=2.0)
    assert build(RunConfig, Layers().add(to_dict(run), "again")) == run


BROKEN = {
    "raise ValueError('a\\nb')": r"cannot be imported: ValueError: a b \(.*broken\.py, line 1\); mend it",
    "import no_such_module": r"cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
    "x = (": r"broken cannot be imported: SyntaxError: .*broken\.py, line 1",
    "from my_package.masks import CheckerboardMask as C, STRATEGIES\n"
    "STRATEGIES.register(type('D', (C,), {}))": r"ValueError: .* are both named 'checkerboard'",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_plug_in_that_cannot_be_imported_is_one_line_that_names_it_and_the_fault(
    code: str, package: Path
) -> None:
    (package / "my_package" / "broken.py").write_text(code)
    (package / "mine.yaml").write_text("plugins: [my_package.masks, my_package.broken]\n")
    (package / "good.yaml").write_text("plugins: [my_package.masks]\n")
    with pytest.raises(ConfigError, match=BROKEN[code]) as raised:
        run_of(RUN, "mine.yaml", "good.yaml", "seed=1")
    assert str(raised.value).startswith("mine.yaml: plugins: my_package.broken")
    assert "\n" not in str(raised.value)


def test_a_plug_in_that_is_not_there_is_one_line_with_the_remedy(package: Path) -> None:
    for name in ("no_package.masks", "my_package.no_masks"):
        with pytest.raises(ConfigError) as raised:
            run_of(RUN, f"plugins=[{name}]")
        top = name.partition(".")[0]
        assert str(raised.value) == (
            f"command line: plugins: there is no module {name}, neither installed nor in {package}; "
            f"correct the name, install {top}, or start vlp in the folder that holds it"
        )


@pytest.mark.parametrize("value", ["my_package.masks", "3", "[3]", "null"])
def test_plug_ins_that_are_no_list_are_refused(value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^command line: plugins must be a list of modules, such as plugins=\["
    ):
        run_of(RUN, f"plugins={value}")


def test_every_command_that_chooses_classes_takes_plug_ins() -> None:
    for schema, values in (
        (EvaluateConfig, {"checkpoint": "x", "evaluation": {}}),
        (DocfreqConfig, {"shards": "x"}),
    ):
        config = build(schema, Layers().add(values | {"plugins": ["my_package.masks"]}, "x"))
        assert config.plugins == ("my_package.masks",)
    assert "checkerboard" in STRATEGIES
    config = parse_any(*read_settings([RUN, MASKS, "mask.name=checkerboard"])).config
    assert to_dict(config)["plugins"] == ["my_package.masks"]


@pytest.mark.parametrize("place", ["top", "common", "runs"])
def test_a_pipeline_hands_its_plug_ins_to_its_runs(place: str, package: Path) -> None:
    (package / "base.yaml").write_text(
        yaml.safe_dump(
            {"name": "x", "plugins": ["my_package.objectives"], "objective": {"name": "mean_colour"}}
        )
    )
    given: dict[str, Any] = {"plugins": ["my_package.masks"]}
    entry = {"base": "base.yaml", "mask": {"name": "checkerboard"}}
    values = {
        "name": "p",
        "corpus": {"name": "tiny_world"},
        "runs": [entry | (given if place == "runs" else {})],
    }
    values |= {"common": given} if place == "common" else given if place == "top" else {}
    plan = Plan(build(PipelineConfig, Layers().add(values, "p.yaml")))
    plan.check()
    (run,) = plan.runs(LATER, LATER)
    assert set(run.plugins) == {"my_package.objectives", "my_package.masks"}
    assert (run.mask.name, run.objective.name) == ("checkerboard", "mean_colour")


def test_a_sweep_searches_classes_of_its_plug_ins(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = yaml.safe_load((REPOSITORY / "conf/sweep/anchor_ratio.yaml").read_text())
    sweep |= {"plugins": ["my_package.masks"], "overrides": {"evaluation.every_steps": 40}}
    sweep["space"] = {"mask": {"choice": [{"name": "checkerboard"}, {"name": "none"}]}}
    config = build(SweepConfig, Layers().add(sweep, "s.yaml"))
    monkeypatch.chdir(REPOSITORY)
    pipeline = build(PipelineConfig, Layers().add(yaml.safe_load(config.pipeline.read_text()), "p"))
    runs = {run.name: run for run in Plan(pipeline).runs(LATER, LATER)}
    check_sweep(config, pipeline, runs, MachineConfig())
    settings = with_evaluation(runs[config.run], planned_evaluation(pipeline), config)
    run = build(RunConfig, settings.set({"mask": {"name": "checkerboard"}}, "space"))
    assert (run.mask.name, run.plugins) == ("checkerboard", ("my_package.masks",))


def test_the_content_of_a_plug_in_is_part_of_the_identity_of_a_run(shards: Path, package: Path) -> None:
    arguments = (RUN, f"data.shards={shards}", "mask.name=checkerboard", "training.batch_size=8")
    run = run_of(*arguments, MASKS)
    first = run_identity(run)
    claim(resolve(run, IN_THIS_PROCESS), package / "out")
    assert run_identity(replace(run, plugins=())) != first
    file = package / "my_package" / "masks.py"
    file.write_text(f"{file.read_text()}\n# changed\n")
    assert run_identity(run) != first
    with pytest.raises(
        ConfigError, match=r"other settings or data: plugins\.my_package\.masks was [0-9a-f]{64}, now"
    ):
        check_same_run(resolve(run, IN_THIS_PROCESS), package / "out")


def test_without_plug_ins_the_identity_of_a_run_is_what_it_was(shards: Path) -> None:
    run = run_of(RUN, f"data.shards={shards}", "training.batch_size=8")
    assert "plugins" not in resolve(run, IN_THIS_PROCESS).settings


def test_any_file_of_a_package_that_is_a_plug_in_counts(shards: Path, package: Path) -> None:
    run = run_of(RUN, f"data.shards={shards}", "training.batch_size=8", "plugins=[my_package]")
    first = run_identity(run)
    (package / "my_package" / "new.py").touch()
    assert run_identity(run) != first


def test_a_checkpoint_imports_its_plug_ins_in_commands_and_in_the_library_only_where_allowed(
    shards: Path, package: Path
) -> None:
    small = "image_encoder={image_size: 32, patch_size: 8, width: 16, depth: 1, num_heads: 2}"
    plugins = "plugins=[my_package.objectives, my_package.masks]"
    run = run_of(RUN, "objective={name: mean_colour}", "mask.name=checkerboard", small, plugins)
    objective = random_objective(run)
    state = TrainingState(objective, build_optimizer(objective, run.optimizer), None, run.mask, 1)
    save_checkpoint(package / "saved", Contents.of(run, state))
    for name in ("my_package", "my_package.masks", "my_package.objectives"):
        del sys.modules[name]
    del STRATEGIES["checkerboard"], OBJECTIVES["mean_colour"]

    for allowed in ((), ("my_package.masks",)):
        with pytest.raises(
            ValueError, match=r"names plug-ins, .*: my_package\.objectives.*; where you trust"
        ) as e:
            vlp.load(package / "saved", plugins=allowed)
        assert re.search(r"plugins=\('my_package\.objectives', 'my_package\.masks'\)", str(e.value))
    assert "checkerboard" not in STRATEGIES
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = objective.eval().features(images)
    model = vlp.load(package / "saved", plugins=("my_package.objectives", "my_package.masks"))
    assert torch.equal(model.features(images), expected)
    vlp.load(package / "saved")  # imported already

    for name in ("my_package", "my_package.masks", "my_package.objectives"):
        del sys.modules[name]
    del STRATEGIES["checkerboard"], OBJECTIVES["mean_colour"]
    loaded, config = load_model(package / "saved", torch.device("cpu"))
    assert config.plugins == run.plugins
    with torch.no_grad():
        assert torch.equal(loaded.features(images), expected)
    (package / "my_package" / "masks.py").unlink()
    del sys.modules["my_package.masks"]
    line = re.escape(f"{package / 'saved' / SETTINGS}: plugins: there is no module my_package.masks")
    with pytest.raises(ConfigError, match=line):
        load_model(package / "saved", torch.device("cpu"))
