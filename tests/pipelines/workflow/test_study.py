"""The study of the cluster-masking paper on CC12M: what its file asks for, what it will take, and its job."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.config.machine import read_settings
from pipelines.workflow.plan import LATER, Plan
from tests.paths import REPOSITORY
from vlp.encoders.vit import ViTConfig
from vlp.objectives.contrastive import ContrastiveConfig

FILES = ("conf/pipeline/cc12m.yaml", "conf/evaluation/papers.yaml", "conf/machine/cluster.yaml")
PLACES = ("download.url_list=/mnt/shared/cc12m.tsv", "evaluation.suite.folder=/mnt/shared/sets")
VISIBLE = {
    "clip": 196,
    "flip": 98,
    "flip_attn": 98,
    "cluster_kmeans": 137,
    "cluster_rgb_05": 98,
    "cluster_rgb_03": 137,
    "cluster_embedding": 137,
}
"""Of the 196 patches of an image those that each method of the paper encodes, at most."""
PAIRS, EPOCHS, PER_GPU, RATE = 10_968_539, 32, 256, 5e-4
"""Of the paper and its code: of CC12M what they had, and of each of the eight GPUs the batch of CLIP."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the files of conf/ and no code."""
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*arguments: str) -> list[str]:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_every_method_is_trained_as_the_paper_has_it(folder: Path) -> None:
    layers, machine = read_settings(FILES)
    plan = Plan.read(layers)
    runs = plan.runs(LATER, LATER)
    by_name = {run.name: run for run in runs[: len(VISIBLE)]}
    assert {name: run.mask.num_visible(196) for name, run in by_name.items()} == VISIBLE
    for run in runs:
        batch, tower, objective = run.training.batch_size, run.image_encoder, run.objective
        assert isinstance(tower, ViTConfig)
        assert isinstance(objective, ContrastiveConfig)
        text = objective.text_encoder
        assert run.num_steps * batch == pytest.approx(EPOCHS * PAIRS, rel=1e-3)
        per_gpu = batch // machine.worker_counts.most
        assert per_gpu == (PER_GPU if run.name.startswith("clip") else 2 * PER_GPU)
        assert run.learning_rate(2000) == pytest.approx(RATE * per_gpu / PER_GPU, rel=1e-3)
        assert (tower.image_size, tower.width, tower.depth, tower.num_heads) == (224, 768, 12, 12)
        assert (text.width, text.depth, text.num_heads, run.tokenizer.context_length) == (512, 12, 8, 77)
    assert plan.config.seeds == len(runs) / len(VISIBLE) == len({run.seed for run in runs})
    assert plan.config.baseline == "clip"
    assert plan.config.evaluation is not None
    suite = plan.config.evaluation.suite
    assert suite is not None
    assert suite.groups.keys() == {"zero_shot_classification", "retrieval"}
    assert len(suite.groups["zero_shot_classification"]) == 12


@pytest.mark.slow  # the operations of seven methods are counted
def test_its_plan_names_each_method_with_its_seeds_memory_and_evaluation(folder: Path) -> None:
    lines = said("plan", *FILES, *PLACES, "--urls", "12.4e6", "--price", "2.5")
    hours = {}
    for name in VISIBLE:
        (line,) = (line for line in lines if line.startswith(f"train {name} x 3 "))
        (said_hours,) = re.findall(r"([\d.]+) hours on 8 GPUs", line)
        hours[name] = float(said_hours)
        assert sum(line.startswith(f"evaluate {name} ") for line in lines) == 1
    assert hours["flip"] == hours["cluster_rgb_05"] < hours["cluster_rgb_03"] < hours["clip"]
    memory = [float(line.split()[3]) for line in lines if line.startswith("  memory per worker")]
    assert len(memory) == len(VISIBLE)
    assert max(memory) < 48  # GB, of the paper's GPUs
    assert any(re.match(r"cost +[\d,.]+ +2\.5 per GPU hour", line) for line in lines)


def test_it_is_a_job_with_all_files_that_it_names(folder: Path) -> None:
    lines = said("submit", "--address", "http://head:8265", "--dry-run", "run", *FILES, *PLACES)
    job, travels, *files = (line.strip() for line in lines)
    assert (
        job
        == f"job: python -u -m pipelines run {' '.join((*FILES, *PLACES))} machine.storage=/mnt/shared/vlp"
    )
    assert travels.startswith(f"travels: {len(files)} files")
    bases = {str(entry["base"]) for entry in Plan.read(read_settings(FILES)[0]).config.runs}
    assert {*FILES, *bases} <= set(files)


def test_the_list_itself_does_not_travel(folder: Path) -> None:
    with Path("cc12m.tsv").open("wb") as file:
        file.truncate(2_600_000_000)
    result = CliRunner().invoke(main, ["submit", "--address", "http://head:8265", "--dry-run", "run", *FILES])
    assert result.exit_code == 2
    assert "2.6 GB" in result.stderr
    assert "leave files out by --exclude or .gitignore; the largest: cc12m.tsv" in result.stderr
