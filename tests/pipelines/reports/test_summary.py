"""The table of a pipeline's runs: a column for every metric of every set."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines.config.errors import ConfigError, UserError
from pipelines.evaluation.measured_model import MeasuredModel
from pipelines.reports.comparison import Comparison, Row, compare, relative_time
from pipelines.reports.measured import Measured
from pipelines.reports.summary import summary_markdown, summary_tables
from pipelines.reports.tables import print_table
from pipelines.workflow.report import ReportManifest, write_report
from vlp.metrics.group_means import GroupMean
from vlp.metrics.intervals import Difference, Interval
from vlp.metrics.outcomes import MatchRanks
from vlp.run import RunConfig

CLIP = {
    "coco/text_to_image/recall@1": 0.5,
    "coco/text_to_image/median_rank": 3.0,
    "cifar10/knn/acc1": 0.25,
    "cifar10/zero_shot/acc1": 0.125,
    "pets/knn/acc1": 0.75,
}
ROWS = [
    Row("superclass", "superclass", "none", {"cifar10/knn/acc1": 0.3, "pets/knn/acc1": 0.4}, 20.0),
    Row("clip", "contrastive", "none", CLIP, 30.0),
]


def printed(comparison: Comparison) -> None:
    for table in summary_tables(comparison):
        print_table(table)


def sure(comparison: Comparison) -> Comparison:
    """With an interval of every number that has none."""
    return replace(
        comparison,
        rows=[
            replace(row, intervals={key: Interval(x, x) for key, x in row.metrics.items()} | row.intervals)
            for row in comparison.rows
        ],
    )


def test_every_set_has_its_columns(tmp_path: Path) -> None:
    chance = {"cifar10/knn/acc1": 0.1, "coco/text_to_image/recall@1": 0.005}
    comparison = Comparison(name="x", rows=ROWS, chance=chance)
    manifest = write_report(sure(comparison), [], Image.new("RGB", (8, 8)), tmp_path)
    assert ReportManifest.read(tmp_path) == manifest
    assert summary_markdown(comparison).splitlines() == [
        "| method | objective | mask | cifar10 zero-shot | cifar10 kNN | pets kNN | coco T->I R@1 | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| superclass | superclass | none | - | 30.0% | 40.0% | - | 1.00x |",
        "| clip | contrastive | none | 12.5% | 25.0% | 75.0% | 50.0% | 1.50x |",
        "| (chance) | - | - | - | 10.0% | - | 0.5% | - |",
        "",
        "time: steps x seconds per step, in those of superclass; steps measured in turn on one worker",
    ]
    saved = {row["method"]: row["metrics"] for row in json.loads((tmp_path / "report.json").read_text())}
    assert saved["clip"] == CLIP
    assert Image.open(tmp_path / "report.png").size[0] > 400


SURE = Interval(0.24, 0.27)
GAINS = {"cifar10/knn/acc1": Difference(0.05, 0.02, 0.085), "pets/knn/acc1": Difference(-0.35, -0.7, 0.1)}


def test_numbers_carry_their_intervals_and_differences_say_what_stands_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    superclass, clip = ROWS
    rows = [replace(superclass, differences=GAINS), replace(clip, intervals={"cifar10/knn/acc1": SURE})]
    comparison = Comparison(name="x", rows=rows, chance={}, baseline="clip")
    write_report(sure(comparison), [], Image.new("RGB", (8, 8)), tmp_path)
    lines = summary_markdown(comparison).splitlines()
    assert "| clip | contrastive | none | 12.5% | 25.0% ±2.0 | 75.0% | 50.0% | 1.50x |" in lines
    assert lines[5:10] == [
        "### Differences from clip",
        "",
        "| method | cifar10 zero-shot | cifar10 kNN | pets kNN | coco T->I R@1 |",
        "| --- | --- | --- | --- | --- |",
        "| superclass | - | +5.0 ±3.5* | -35.0 ±45.0 | - |",
    ]
    printed(comparison)
    assert {"±2.0", "±3.5*", "±45.0"} <= set(capsys.readouterr().out.split())
    superclass_row, clip_row = json.loads((tmp_path / "report.json").read_text())
    assert clip_row["intervals"]["cifar10/knn/acc1"] == [0.24, 0.27]
    assert superclass_row["differences"]["cifar10/knn/acc1"] == [0.05, 0.02, 0.085]


def test_untrained_networks_take_no_time_and_are_no_measure_of_it() -> None:
    rows = [Row("untrained", "contrastive", "none", {}, 0.0), *ROWS]
    assert [relative_time(row, rows) for row in rows] == [0.0, 1.0, 1.5]


def test_the_terminal_shows_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    printed(Comparison(name="x", rows=ROWS, chance={}))
    words = capsys.readouterr().out.split()
    assert words.count("cifar10") == 2
    assert {"superclass", "clip", "pets", "kNN", "T->I", "12.5%", "1.50x"} <= set(words)


def test_a_set_that_is_the_only_one_is_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("mae", "mae", "random", {"pets/knn/acc1": 0.5}, 1.0)]
    printed(Comparison(name="x", rows=rows, chance={}))
    words = capsys.readouterr().out.split()
    assert "kNN" in words
    assert "pets" not in words


def test_means_of_groups_say_what_they_are_over() -> None:
    mean = GroupMean(0.5, 0.375, 0.6, ["cifar10", "pets"], ["sun397"])
    rows = [replace(ROWS[0], groups={"natural/knn": mean}), ROWS[1]]
    lines = summary_markdown(Comparison(name="x", rows=rows, chance={})).splitlines()
    start = lines.index("### Means of groups of sets")
    assert lines[start + 2 : start + 5] == [
        "| group | protocol | method | mean | over | lacks |",
        "| --- | --- | --- | --- | --- | --- |",
        "| natural | knn | superclass | 50.0% ±12.5 | cifar10, pets | sun397 |",
    ]


def test_methods_of_several_seeds_are_compared_by_their_means(tiny_run: Callable[..., RunConfig]) -> None:
    """Retrieval of 40 images by three seeds, in which one method finds all and one finds half."""
    half = [MatchRanks(1 + 9 * (torch.arange(40) % 2 == shift).long()) for shift in (0, 1, 0)]
    methods = {"clip": half, "flip": [MatchRanks(torch.ones(40, dtype=torch.int64))] * 3}
    measured = [
        Measured(
            model=MeasuredModel.of(run := tiny_run(name=f"{name}-seed{seed}" if seed else name, seed=seed)),
            method=MeasuredModel.of(run).method,
            outcomes={"dev/text_to_image": outcomes},
            groups={"all": {"dev": "recall@1"}},
            seconds=1.0,
        )
        for name, by_seed in methods.items()
        for seed, outcomes in enumerate(by_seed)
    ]
    comparison = compare("x", measured, baseline="clip")
    clip, flip = comparison.rows
    key = "dev/text_to_image/recall@1"
    assert (clip.metrics[key], flip.metrics[key]) == (0.5, 1.0)
    assert (clip.spreads[key], flip.spreads[key]) == (0.0, 0.0)
    assert clip.differences == {}
    assert flip.differences[key].stands_out
    assert flip.differences[key].value == 0.5
    assert flip.groups["all/text_to_image"].low == pytest.approx(flip.intervals[key].low)
    assert flip.seeds == (0, 1, 2)
    lines = summary_markdown(comparison)
    assert "over other images and other seeds" in lines
    assert "paired by image and seed" in lines
    assert "means over 3 seeds" in lines


def test_a_baseline_that_is_not_there_and_sets_that_differ_are_refused(
    tiny_run: Callable[..., RunConfig],
) -> None:
    one, other = (
        Measured(
            model=MeasuredModel.of(tiny_run(name=name)),
            method=name,
            outcomes={"dev/text_to_image": MatchRanks(torch.ones(size, dtype=torch.int64))},
        )
        for name, size in (("clip", 40), ("flip", 41))
    )
    with pytest.raises(ConfigError, match="no method is called clipp; did you mean clip"):
        compare("x", [one, other], baseline="clipp")
    with pytest.raises(UserError, match="flip and clip were measured on different sets of one name"):
        compare("x", [one, other], baseline="clip")
