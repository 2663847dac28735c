"""What a user sees of a pipeline in MLflow, in a real browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.servers.browser import CHROMIUM, Page, browsing
from tests.servers.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # on a busy machine
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]

PIPELINE = """
name: small
corpus:
  {name: tiny_world, num_train: 64, num_heldout: 12, image_size: 32}
download: {image_size: 32, number_sample_per_shard: 32, retries: 0}
docfreq: {tokenizer: &tokenizer {name: clip_bpe, context_length: 16}}
common:
  tokenizer: *tokenizer
  image_encoder: {image_size: 32, patch_size: 4, width: 16, depth: 1, num_heads: 2}
  training: {length: {steps: 8}, batch_size: 16, precision: fp32}
  lr_schedule: {warmup_steps: 1}
  evaluation: {every_steps: 4}
runs:
  - base: conf/run/clip.yaml
    objective: &small {embed_dim: 8, text_encoder: {width: 16, depth: 1, num_heads: 2}}
  - base: conf/run/cluster_rgb.yaml
    name: cluster_mix
    mask: {feature: mix, recalibrations: 2}
    objective: *small
machine: {num_workers: 0, data_workers: 0, log_every_steps: 2, checkpoints: {every_steps: 4, track: all}}
"""
SCREENSHOTS = os.environ.get("VLP_SCREENSHOTS")
"""Folder that the pictures are kept in, to be looked at and to be shown in the manual."""
CARD = """(() => {
    const texts = [...document.querySelectorAll("*")].filter(one => !one.childElementCount);
    let card = texts.find(one => one.innerText?.trim() == "view/masks");
    while (card && !card.querySelector("[role=slider]")) card = card.parentElement;
    if (!card) {  // charts are made where one looks
        for (const one of document.querySelectorAll("*")) {
            const isAtEnd = one.scrollTop + one.clientHeight > one.scrollHeight - 2;
            if (one.scrollHeight > one.clientHeight) one.scrollTop = isAtEnd ? 0 : one.scrollTop + 800;
        }
    }
    return card;
})()"""
"""The chart of the masks, with its slider; goes on down the page where it is not there yet."""


def vlp(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *arguments]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of a pipeline's results, and what the command printed."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(PIPELINE)
    command = vlp("run", str(folder / "small.yaml"), f"machine.storage={folder / 'results'}")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "results", done.stdout


@pytest.fixture(scope="module")
def page_of_experiment(storage: tuple[Path, str]) -> Iterator[str]:
    """The link that `vlp ui` prints."""
    port = free_port()
    command = vlp("ui", f"machine.storage={storage[0]}", "--port", str(port))
    server = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    lines = (line.strip() for line in server.stdout)
    yield next(line.removeprefix("small: ") for line in lines if line.startswith("small: "))
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


def keep(page: Page, name: str, tmp_path: Path) -> None:
    """A picture of what is seen."""
    page.screenshot(Path(SCREENSHOTS or tmp_path) / f"{name}.png")


def address(page: Page, link: str, name: str) -> str:
    """Of a run, as its link in the table of runs has it."""
    page.open(link)
    found = "[...document.querySelectorAll('a[href*=\"/runs/\"]')]"  # the experiment may be called alike
    return page.until(f"{found}.find(link => link.innerText.trim() == '{name}')?.href").split("?")[0]


def test_the_end_of_a_command_says_where_to_look(storage: tuple[Path, str], page_of_experiment: str) -> None:
    (line,) = re.findall(r"^browse:  .*$", storage[1], re.MULTILINE)
    fragment = page_of_experiment.partition("/#/")[2]
    assert line.endswith(f"then open http://127.0.0.1:5000/#/{fragment}")
    assert fragment.startswith("experiments/1/runs?workflowType=machine_learning")


def test_the_link_opens_on_the_nested_runs_with_their_columns(
    page: Page, page_of_experiment: str, tmp_path: Path
) -> None:
    page.open(page_of_experiment)
    page.shows("Model training", "small", "clip", "cluster_mix", "docfreq", "download", "Duration", "Models")
    keep(page, "runs", tmp_path)
    scroll = (
        "document.querySelectorAll('.ag-body-horizontal-scroll-viewport').forEach(e => e.scrollLeft += 150)"
    )
    for column in ("method", "objective", "mask", "encoder", "tokenizer", "stop_reason"):
        page.until(f"({scroll}, document.body.innerText.includes('{column}'))")
    keep(page, "runs_columns", tmp_path)


def test_the_page_of_the_pipeline_is_the_comparison(
    page: Page, page_of_experiment: str, tmp_path: Path
) -> None:
    run = address(page, page_of_experiment, "small")
    page.open(f"{run}?workflowType=machine_learning")
    page.shows("Description", "T->I", "M hidden", "2405.08815")
    linked = "[...document.querySelectorAll('td a')].map(link => link.innerText)"
    assert {"clip", "cluster_mix"} <= set(page.until(linked))
    keep(page, "comparison", tmp_path)
    page.open(f"{run}/model-metrics?workflowType=machine_learning")
    page.shows("kNN", "cluster_mix", "relative time")
    keep(page, "comparison_charts", tmp_path)


def test_charts_begin_with_the_loss_and_pictures_move_with_the_step(
    page: Page, page_of_experiment: str, tmp_path: Path
) -> None:
    run = address(page, page_of_experiment, "cluster_mix")
    page.open(f"{run}/model-metrics?workflowType=machine_learning")
    page.shows("train", "val/", "view", "weights", "worker")
    sections = re.findall(r"^(train|val|view|weights|worker)\b", page.text(), re.MULTILINE)
    assert list(dict.fromkeys(sections)) == ["train", "val", "view", "weights", "worker"]
    keep(page, "method", tmp_path)
    page.until(f"(window.card = {CARD}) && (window.card.scrollIntoView({{block: 'center'}}), true)")
    masks = "window.card.querySelector('img[src*=masks]')?.src ?? ''"
    page.until(f"({masks}).includes('step%2B0%2B')")
    page.ask("window.card.querySelector('[role=slider]').focus()")
    page.press("ArrowRight", 39)
    page.until(f"({masks}).includes('step%2B4%2B')")
    page.until("window.card.querySelector('img[src*=masks]').complete")
    page.ask("window.card.querySelector('img[src*=masks]').scrollIntoView({block: 'nearest'})")
    keep(page, "method_masks", tmp_path)


def test_the_page_of_a_model_shows_its_metrics(page: Page, page_of_experiment: str, tmp_path: Path) -> None:
    experiment = page_of_experiment.partition("/runs?")[0]
    page.open(f"{experiment}/models?workflowType=machine_learning")
    page.shows("cluster_mix-step-4", "cluster_mix-step-8")
    keep(page, "models", tmp_path)
    page.click("a", "cluster_mix-step-8")
    page.shows("Metrics (", "retrieval.tiny_world", "recall_at_1")
    keep(page, "model", tmp_path)
