"""Scores are the dense cosines of the checkpoint's embeddings; filters what a loop over the samples says."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import vlp
from pipelines.checkpoints.checkpoint import load_model, write_settings
from pipelines.commands.main import main
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.curation.making import TABLE
from pipelines.curation.score import COLUMNS, ScoreConfig, ScoreShard, Seen, check_scorer, score
from pipelines.shards.subset import subset
from pipelines.tracking.journal import Journal
from tests.pipelines.runs import pretrain
from vlp.checkpoint import MODEL
from vlp.export import export
from vlp.model import Model
from vlp.run import RunConfig
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.selection import SelectionManifest
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.local import LocalFolder
from vlp.shards.writing import Sample, write_shard

CAPTIONS = {
    "several": ["a red square", "two blue circles on the left"],
    "short": ["dog"],
    "none": [],
    "broken": ["no picture at all"],
    "failed": ["nothing was stored"],
    "narrow": ["a long road to the north"],
    "small": ["a green triangle"],
}
SIZES = {"narrow": (900, 250), "small": (190, 210)}
MACHINE = MachineConfig(num_workers=0, data_workers=0)


class Scored(NamedTuple):
    shards: Path
    checkpoint: Path
    output: Path


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((48, 40)).save(stream, "PNG")
    return stream.getvalue()


def write(folder: Path) -> Path:
    """Two shards of samples by name, the second one in reverse."""
    folder.mkdir()
    stats = []
    for shard, names in enumerate([list(CAPTIONS), list(CAPTIONS)[::-1]]):
        samples = []
        for i, name in enumerate(names):
            body = b"broken" if name == "broken" else picture(10 * shard + i)
            size = SIZES.get(name, (300, 200))
            stored = StoredImage(SUCCESS, None, body, (48, 40), size, hashlib.sha256(body).hexdigest())
            stored = StoredImage("timeout") if name == "failed" else stored
            samples.append(Sample(f"{shard}{i}", f"http://x/{shard}/{name}", CAPTIONS[name], stored))
        stats.append(write_shard(folder, f"{shard:05d}", samples))
    ShardsManifest.of(stats).write(folder)
    return folder


def begun(folder: Path) -> Journal:
    journal = Journal(folder / "journal")
    journal.begin(name="stage", tags={})
    return journal


def run_score(checkpoint: Path, shards: Path, output: Path) -> SelectionManifest:
    config = ScoreConfig(shards=LocalFolder(shards), checkpoint=checkpoint)
    return score(config, LocalFolder(output), machine=MACHINE, journal=begun(output.parent))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, make_shards: Any) -> Scored:
    """Two shards, a model that was trained for two steps, and the selection of both."""
    folder = tmp_path_factory.mktemp("score")
    trained_on = make_shards(folder / "train", [[f"a red circle {i}"] for i in range(8)])
    run = run_of(trained_on, {"name": "contrastive", "text_encoder": TOWER})
    checkpoint, shards = folder / "run", write(folder / "shards")
    pretrain(run, checkpoint, machine=MACHINE, journal=begun(folder))
    run_score(checkpoint, shards, folder / "scored")
    return Scored(shards, checkpoint, folder / "scored")


TOWER = {"width": 16, "depth": 1, "num_heads": 2}


def run_of(shards: Path, objective: dict[str, Any]) -> RunConfig:
    settings = {
        "name": "tiny",
        "data": {"shards": str(shards)},
        "tokenizer": {"name": "clip_bpe", "context_length": 16},
        "image_encoder": {"image_size": 32, "patch_size": 8, **TOWER},
        "mask": {"name": "random", "mask_ratio": 0.5},
        "objective": objective,
        "training": {"length": {"steps": 2}, "batch_size": 4},
        "lr_schedule": {"warmup_steps": 0},
    }
    return build(RunConfig, Layers().add(settings, "test"))


def untrained(scored: Scored, folder: Path) -> Path:
    """What is looked at first of a checkpoint of an objective that reads no captions."""
    folder.mkdir(exist_ok=True)
    write_settings(folder, run_of(scored.shards, {"name": "mae"}))
    (folder / MODEL).touch()
    return folder


def columns_of(scored: Scored) -> dict[str, dict[str, Any]]:
    """URL -> what the selection has of it."""
    manifest, found = SelectionManifest.read(scored.output), {}
    for stats in ShardsManifest.read(scored.shards).shards:
        urls = pq.read_table(scored.shards / f"{stats.name}.parquet")["url"].to_pylist()
        rows = pq.read_table(scored.output / manifest.file(stats)).to_pylist()
        found |= dict(zip(urls, rows, strict=True))
    return found


def expected(checkpoint: Path) -> dict[str, float]:
    """The least cosine of each image and its captions, out of the matrix of all images and all texts."""
    model = vlp.load(checkpoint)
    names = {shard: list(CAPTIONS)[:: 1 - 2 * shard] for shard in (0, 1)}
    usable = [
        (shard, i, name)
        for shard, order in names.items()
        for i, name in enumerate(order)
        if name not in ("none", "broken", "failed")
    ]
    pixels = torch.stack([model.preprocess(picture(10 * shard + i)) for shard, i, _ in usable])
    images = model.encode_image(pixels)
    texts = [text for captions in CAPTIONS.values() for text in captions]
    cosines = images @ model.encode_text(*model.tokenize(texts)).T
    return {
        f"http://x/{shard}/{name}": min(float(cosines[row, texts.index(text)]) for text in CAPTIONS[name])
        for row, (shard, _, name) in enumerate(usable)
    }


def test_similarity_is_the_least_dense_cosine_of_an_image_and_its_captions(scored: Scored) -> None:
    similarities = {url: row["similarity"] for url, row in columns_of(scored).items()}
    known = expected(scored.checkpoint)
    assert len(known) == 8
    assert {url for url, value in similarities.items() if value is not None} == set(known)
    assert {url: similarities[url] for url in known} == pytest.approx(known, abs=1e-5)


def test_the_filters_are_those_of_captions_and_of_the_original_image(scored: Scored) -> None:
    names = ("words", "characters", "shorter_side", "aspect")
    found = {
        url.removeprefix("http://x/0/"): tuple(row[name] for name in names)
        for url, row in columns_of(scored).items()
    }
    assert found["several"] == (3, 12, 200, 1.5)
    assert found["short"] == (1, 3, 200, 1.5)
    assert found["narrow"] == pytest.approx((6, 24, 250, 3.6))
    assert found["small"] == pytest.approx((3, 16, 190, 210 / 190))
    assert found["none"] == found["failed"] == (None,) * 4
    assert found["broken"] == (4, 17, 200, 1.5)
    table = (scored.output / TABLE).read_text()
    assert "| `words>=2` | 8 | 80.0% |" in table
    assert "DataComp's basic filter but for English | 4 | 40.0% |" in table


def test_a_subset_takes_what_two_columns_allow(scored: Scored, tmp_path: Path) -> None:
    known = expected(scored.checkpoint)
    middle = sorted(known.values())[4] - 1e-4
    subset(
        scored.shards, [f"selection={scored.output}", f"similarity>={middle}", "words>=2"], tmp_path / "some"
    )
    urls = pq.read_table(tmp_path / "some/00000.parquet")["url"].to_pylist()
    assert sorted(urls) == sorted(
        url for url, value in known.items() if value >= middle and not url.endswith("short")
    )
    assert len(ShardSet(tmp_path / "some")) == len(urls) > 0


def test_only_the_shard_that_is_missing_is_scored_again(scored: Scored, tmp_path: Path) -> None:
    """One worker in this process makes the bytes that the stage's processes made."""
    file = SelectionManifest.read(scored.output).file(ShardsManifest.read(scored.shards).shards[1])
    place = LocalFolder(tmp_path / "out")
    worker = ScoreShard(LocalFolder(scored.shards), place, check_scorer(scored.checkpoint), MACHINE)
    worker({"name": "00001", "file": file})
    assert place.read(file) == (scored.output / file).read_bytes()
    before = {one: one.stat().st_mtime_ns for one in scored.output.glob("*.parquet")}
    assert len(before) == 2
    (scored.output / file).unlink()
    run_score(scored.checkpoint, scored.shards, scored.output)
    changed = [one for one in before if one.stat().st_mtime_ns != before[one]]
    assert changed == [scored.output / file]
    assert place.read(file) == (scored.output / file).read_bytes()


def test_a_folder_of_open_clip_scores_alike(scored: Scored, tmp_path: Path) -> None:
    checkpoint = check_scorer(scored.checkpoint)
    export(Model(*load_model(checkpoint, torch.device("cpu"))), tmp_path / "theirs", format="open_clip")
    place = LocalFolder(tmp_path / "out")
    worker = ScoreShard(LocalFolder(scored.shards), place, check_scorer(tmp_path / "theirs"), MACHINE)
    worker({"name": "00000", "file": "0.parquet"})
    file = SelectionManifest.read(scored.output).file(ShardsManifest.read(scored.shards).shards[0])
    ours = pq.read_table(scored.output / file)["similarity"].to_pylist()
    assert place.table("0.parquet")["similarity"].to_pylist() == pytest.approx(ours, abs=1e-5)


def test_a_threshold_takes_the_share_that_is_asked_for() -> None:
    similarities = np.random.default_rng(0).normal(0.2, 0.1, 5000).clip(-1, 1).astype(np.float32)
    columns = {name: pa.array(np.full(5000, 250), kind) for name, kind in COLUMNS.items()}
    seen = Seen()
    for part in np.split(similarities, 2):
        seen.add(pa.table(columns | {"similarity": np.resize(part, 5000)}).slice(0, len(part)))
    for share in (0.1, 0.3, 0.5):
        least, count = seen.threshold(share)
        assert abs(least - np.quantile(similarities, 1 - share)) < 2e-3
        assert count == (similarities >= np.float64(least)).sum() <= share * 5000


MISTAKES: dict[str, tuple[Callable[[Scored, Path], Path], list[str], str]] = {
    "no checkpoint": (lambda _, place: place / "nowhere", [], "is neither a checkpoint nor a finished run"),
    "objective": (
        untrained,
        [],
        "was trained by objective mae, which compares no captions with images",
    ),
    "setting": (lambda scored, _: scored.checkpoint, ["t=3"], "t is not a setting of this command"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_made(kind: str, scored: Scored, tmp_path: Path) -> None:
    checkpoint, arguments, line = MISTAKES[kind]
    arguments = ["--checkpoint", str(checkpoint(scored, tmp_path)), "-o", str(tmp_path / "out"), *arguments]
    result = CliRunner().invoke(main, ["data", "score", str(scored.shards), *arguments])
    assert result.exit_code == 2
    assert line in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
