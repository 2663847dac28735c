"""What a sweep leaves behind."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from pipelines.checkpoints.checkpoint import write_settings
from pipelines.config.settings import Layers, build
from pipelines.sweeps.history import Run
from pipelines.sweeps.report import Outcome, forget_best, print_table, report_markdown, write_outcome
from pipelines.sweeps.settings import SweepConfig
from tests.pipelines.sweeps.tiny import METRIC, conductor_of, sweep_config
from vlp.run import RunConfig

SECOND = "val/tiny_world/image_to_text/recall@5"
SPACE = {"mask.alpha_power": {"grid": [1, 3]}, "mask.anchor_ratio": {"grid": [0.05, 0.2]}}


def ended(config: SweepConfig, folder: Path) -> Outcome:
    """A sweep whose runs were measured once; more anchors are better, and worse in the second metric."""
    conductor = conductor_of(config, folder)
    conductor.history.begin()
    conductor.trials.journal.begin(name="sweep", tags={})
    while isinstance(run := conductor.next_run(), Run):
        values = conductor.history.settings[run.setting].values
        ratio = values["mask.anchor_ratio"]
        scores = {METRIC: ratio + run.seed / 100, SECOND: 1 - ratio}
        conductor.measured(run, 40, scores)
        conductor.ended(run)
        output = conductor.trials.output(run.key)
        output.mkdir(parents=True)
        table = {"mask.threshold": [[0.0, 0.9], [1.0, 0.5]]}
        write_settings(output, conductor.trials.config(values | table, seed=run.seed))
    return Outcome.of(config, conductor.trials, conductor.history)


def settings(**changes: Any) -> SweepConfig:
    overrides = {"evaluation.every_steps": 40, "mask.feature": "mix"}
    given = {"run": "cluster_rgb", "space": SPACE, "search": {"name": "grid"}, "num_trials": None}
    return sweep_config(**given | {"overrides": overrides, "scheduler": {"name": "none"}} | changes)


def test_the_best_setting_the_table_and_the_pictures_are_written(tmp_path: Path, capsys: Any) -> None:
    outcome = ended(settings(seeds=2), tmp_path)
    write_outcome(outcome)
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    config = build(RunConfig, Layers().add(best, "best.yaml"))
    assert (config.mask, config.seed) == (outcome.trials.config({"mask.anchor_ratio": 0.2}).mask, 0)
    rows = json.loads((tmp_path / "report.json").read_text())
    assert [row["setting"]["mask.anchor_ratio"] for row in rows] == [0.2, 0.2, 0.05, 0.05]
    assert rows[0]["by_seed"]["seed+1"][METRIC] == 0.2 + 1 / 100
    for name in ("axes", "pairs", "parallel", "schedules"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 300
    artifacts = [
        record.fields["path"] for record in outcome.trials.journal.read() if record.kind == "artifact"
    ]
    assert {Path(path).name for path in artifacts} == {
        *("best.yaml", "report.md", "report.json"),
        *("axes.png", "pairs.png", "parallel.png", "schedules.png"),
    }
    (page,) = [record.fields for record in outcome.trials.journal.read() if record.kind == "description"]
    links = re.findall(r"\| \[(\d{4})\] \|", page["text"])
    assert links == list(page["runs"]) == [f"{one.number:04d}" for one in outcome.found]
    assert {outcome.said(one) in page["text"] for one in outcome.best} == {True}
    assert page["columns"] == [METRIC]
    print_table(outcome)
    said = capsys.readouterr().out
    assert "0.2 (4 of 16 patches)" in said
    assert "0.2050 ± 0.0071" in said
    assert "over 2 seeds" in report_markdown(outcome)


def test_a_front_has_a_file_for_each_of_its_settings_and_none_is_the_best(tmp_path: Path) -> None:
    outcome = ended(settings(metrics={METRIC: "max", SECOND: "max"}), tmp_path)
    write_outcome(outcome)
    assert {file.name for file in tmp_path.glob("*.yaml")} == {
        f"best-000{number}.yaml" for number in range(4)
    }
    assert (tmp_path / "axes1.png").exists()
    forget_best(outcome)
    assert not list(tmp_path.glob("*.yaml"))


def test_a_setting_whose_condition_is_not_met_is_a_dash_and_a_gap(tmp_path: Path, capsys: Any) -> None:
    space = {
        "mask.feature": {"grid": ["rgb", "mix"]},
        "mask.alpha_power": {"grid": [1, 3], "when": {"mask.feature": "mix"}},
        "mask.anchor_ratio": {"grid": [0.05, 0.2]},
    }
    outcome = ended(settings(space=space, overrides={"evaluation.every_steps": 40}), tmp_path)
    write_outcome(outcome)
    print_table(outcome)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "done" in line]
    found = sorted((row[row.index("done") - 8], row[row.index("done") - 7]) for row in rows)
    assert found == [("mix", "1"), ("mix", "1"), ("mix", "3"), ("mix", "3"), ("rgb", "-"), ("rgb", "-")]
    for name in ("axes", "pairs", "parallel"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 300


def test_whose_weights_a_trial_went_on_with_is_said(tmp_path: Path) -> None:
    pbt = {"name": "pbt", "perturbation_interval": 20, "quantile_fraction": 0.25}
    conductor = conductor_of(settings(scheduler=pbt), tmp_path)
    conductor.history.begin()
    while isinstance(run := conductor.next_run(), Run):
        step = conductor.stretch(run).until
        conductor.measured(run, step, {METRIC: 1.0 - run.setting / 10})
        conductor.ended(run)
    outcome = Outcome.of(conductor.config, conductor.trials, conductor.history)
    assert report_markdown(outcome).count("done, weights of 0000 after 20") == 1
