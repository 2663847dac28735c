"""`vlp report`: one page of folders, of MLflow's runs and of sweeps, which needs nothing beside it."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pipelines.commands.main import main
from pipelines.config.identity import fingerprint
from pipelines.evaluation.evaluate import OUTCOMES, EvaluationManifest
from pipelines.evaluation.measured_model import MeasuredModel
from pipelines.reports.folders import Index, entry_of
from pipelines.tracking.delivery import Delivery
from pipelines.tracking.journal import Journal
from vlp.evaluation.outcome_table import write_outcomes
from vlp.metrics.intervals import named_intervals
from vlp.metrics.outcomes import Choices, ClassRanks, MatchRanks, Outcomes, named_metrics
from vlp.run import RunConfig

SIZE = 60
PARTS = ("replace_obj", "swap_obj")


def outcomes(share: float) -> dict[str, Outcomes]:
    """Of a model that does well on some share of the items."""
    right = torch.arange(SIZE) < share * SIZE
    ranks, labels = torch.where(right, 1, 7), torch.arange(SIZE) % 3
    guesses = torch.where(right, labels, (labels + 1) % 3)
    choices = Choices(right, right, torch.arange(SIZE) % 2, num_images=1)
    found: dict[str, Outcomes] = {
        "flickr8k/image_to_text": MatchRanks(ranks),
        "flickr8k/text_to_image": MatchRanks(ranks),
        "sugarcrepe/choice": choices,
    }
    found |= {f"sugarcrepe/choice/{part}": choices.of_parts([i]) for i, part in enumerate(PARTS)}
    for data in ("cifar10", "mnist"):
        found[f"{data}/zero_shot"] = ClassRanks(ranks, labels, 3, guesses=guesses)
    return found


def write_evaluation(folder: Path, run: RunConfig, share: float) -> EvaluationManifest:
    """What `vlp evaluate` would leave."""
    found = outcomes(share)
    (folder / "pictures").mkdir(parents=True)
    write_outcomes(found, folder / OUTCOMES)
    Image.new("RGB", (30, 20), "red").save(folder / "pictures" / "text_to_image-of-flickr8k.png")
    manifest = EvaluationManifest(
        digest=fingerprint(share),
        step=10,
        metrics=named_metrics(found),
        intervals=named_intervals(found),
        model=MeasuredModel.of(run),
        chance={"cifar10/zero_shot/acc1": 1 / 3},
        classes={name: ["cat", "dog", "cow"] for name in ("cifar10", "mnist")},
    )
    manifest.write(folder)
    return manifest


SHARES = {"clip": 0.5, "flip": 0.9}
PACES = {"clip": 0.2, "flip": 0.1}


@pytest.fixture
def pipeline(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> Path:
    """The folder of a pipeline of two methods that was tracked."""
    folder, root = tmp_path / "results" / "photos", tmp_path / "results" / "journals"
    parent = Journal(root / "pipeline")
    parent.begin(name="photos", tags={"stage": "pipeline"})
    entries = []
    for name, share in SHARES.items():
        place, journal = folder / "evaluate" / name, Journal(root / name)
        manifest = write_evaluation(place, tiny_run(name=name), share)
        journal.begin(name=name, parent=parent.folder, tags={})
        journal.metrics(manifest.logged, step=10)
        for file in ("manifest.json", OUTCOMES):
            journal.artifact(place / file, folder="evaluation")
        journal.artifact(place / "pictures" / "text_to_image-of-flickr8k.png", folder="pictures")
        run, seconds = folder / "pretrain" / name, 10 * PACES[name]
        entries.append(entry_of(folder, evaluation=place, run=run, journal=journal.folder, seconds=seconds))
    times = Journal(root / "step_times")
    times.begin(name="step_times", parent=parent.folder, tags={"stage": "step_times"})
    times.metrics({f"{name}/step_seconds": pace for name, pace in PACES.items()})
    Index("clip", entries).write(folder)
    return folder


@pytest.fixture
def store(pipeline: Path) -> str:
    """The setting that names the store that the pipeline was delivered to."""
    results = pipeline.parent
    uri = f"sqlite:///{results / 'mlflow.db'}"
    with Delivery(results / "journals", tracking_uri=uri, experiment="photos") as delivery:
        assert delivery.flush(240) == 0
    return f"machine.storage={results}"


def report(output: Path, *arguments: str) -> tuple[str, str]:
    """The pages that the command writes: Markdown and HTML."""
    done = CliRunner().invoke(main, ["report", *arguments, "-o", str(output)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return (output / "report.md").read_text(), (output / "report.html").read_text()


class Page(HTMLParser):
    """What a page takes from elsewhere, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {key: value or "" for key, value in attrs}
        self.tags.add(tag)
        self.sources += [own["src"]] if "src" in own else []
        self.links += [own["href"]] if "href" in own else []
        self.ids += [own["id"]] if "id" in own else []


def lines_of(markdown: str, title: str) -> list[list[str]]:
    """The table of a section, without its addresses."""
    part = markdown.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    plain = [re.sub(r"\[([^\]]+(?:\[[\d.]+\])?)\](?:\[\d+\]|\(\S+?\))", r"\1", row) for row in rows]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in plain]


def test_a_pipeline_is_laid_out_as_the_papers_with_their_numbers_below(
    pipeline: Path, tmp_path: Path
) -> None:
    markdown, html = report(tmp_path / "out", str(pipeline), f"machine.storage={tmp_path}")
    header, _, clip, flip, chance, *papers = lines_of(markdown, "Zero-shot classification")
    assert header == ["method", "cifar10 zero-shot", "mnist zero-shot", "mean of 2"]
    assert [cell.split()[0] for cell in clip] == ["clip", "50.0%", "50.0%", "50.0%"]
    assert flip[0] == "flip"
    assert chance == ["(chance)", "33.3%", "-", "-"]
    rows = {row[0]: row[1:] for row in papers}
    assert rows["CLIP [2405.08815]"] == ["57.7%", "11.7%", "34.7%"]
    header, _, clip, *_ = lines_of(markdown, "Choice of captions")
    assert header[1:4] == ["sugarcrepe replace obj", "sugarcrepe swap obj", "sugarcrepe mean of parts"]
    retrieval = {row[0]: row for row in lines_of(markdown, "Zero-shot retrieval")[2:]}
    assert retrieval["CLIP [2405.08815]"][1:] == ["55.7%", "81.6%", "89.9%", "40.5%", "68.9%", "80.2%"]
    times = dict(lines_of(markdown, "Relative time")[2:])
    assert (times["clip"], times["flip"], times["FLIP [2405.08815]"]) == ("1.00x", "0.50x", "0.53x")
    assert "Differences from clip" in markdown
    page = Page(html)
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert page.tags.isdisjoint({"script", "link", "iframe"})
    assert {link[1:] for link in page.links if link.startswith("#")} == set(page.ids)
    assert (pipeline / "evaluate" / "flip").as_uri() in page.links
    assert 'class="better"' in html
    pictures = re.findall(r"!\[[^\]]*\]\((\S+)\)", markdown)
    assert len(pictures) == 2 + 2 + 2  # charts, confusion matrices, retrievals
    assert all((tmp_path / "out" / picture).is_file() for picture in pictures)
    assert {row["method"] for row in json.loads((tmp_path / "out" / "report.json").read_text())} == set(
        SHARES
    )


@pytest.mark.parametrize(
    "found_by",
    [
        ["photos"],
        pytest.param(["--experiment", "photos"], marks=pytest.mark.slow),
        pytest.param(["--where", "attributes.status != ''"], marks=pytest.mark.slow),
    ],
)
def test_runs_of_mlflow_give_the_same_numbers_with_links_to_their_pages(
    found_by: list[str], pipeline: Path, store: str, tmp_path: Path
) -> None:
    ours, _ = report(tmp_path / "folder", str(pipeline), store)
    markdown, html = report(tmp_path / "mlflow", store, "--baseline", "clip", *found_by)
    assert ours.partition("\n")[2] == markdown.partition("\n")[2]
    links = {link for link in Page(html).links if "/runs/" in link}
    assert len(links) == 2
    assert all(re.fullmatch(r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs/\w{32}\?\S+", x) for x in links)


def test_evaluations_that_are_called_alike_are_told_apart(
    tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        write_evaluation(tmp_path / name / "checkpoints" / "evaluation", tiny_run(name="clip"), 0.5)
    markdown, _ = report(tmp_path / "out", *(str(tmp_path / name) for name in ("one", "two")))
    rows = [row[0] for row in lines_of(markdown, "Methods")[2:]]
    assert rows == ["clip (one)", "clip (two)"]


def test_a_sweep_is_an_ablation_with_the_papers_of_its_setting(tmp_path: Path) -> None:
    folder = tmp_path / "idf"
    folder.mkdir()
    (folder / "sweep.json").write_text("{}")
    (folder / "best.yaml").write_text("objective: {name: superclass}")
    setting = {"setting": {"objective.idf": "online"}, "state": "done"}
    found = [setting | {"scores": {"val/x/knn/acc1": {"mean": 0.25, "spread": 0.01}}}]
    (folder / "report.json").write_text(json.dumps(found))
    markdown, _ = report(tmp_path / "out", str(folder))
    assert ["online", "0.2500 ±0.0100", "done"] in lines_of(markdown, "Ablation: idf")
    papers = lines_of(markdown, "objective.idf, as in arXiv:2411.03313")
    assert papers[2:] == [["online", "76.0%", "61.7%"], ["none", "75.6%", "60.8%"]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "name what the report is of"),
        (["{place}"], "is not a folder of results that a report is made of"),
        (["{place}", "lr=1"], "lr is not a setting of this command"),
    ],
)
def test_what_no_report_is_made_of_is_refused_in_one_line(
    arguments: list[str], reason: str, tmp_path: Path
) -> None:
    words = [word.format(place=tmp_path) for word in arguments]
    done = CliRunner().invoke(main, ["report", *words])
    assert done.exit_code == 2
    assert reason in done.output
    assert done.output.count("\n") == 1
