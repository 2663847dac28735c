"""Small folders of shards and runs that train in a second, made without a network."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.settings import Layers, build
from vlp.run import RunConfig
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.writing import Sample, write_shard
from vlp.tiny_world import TinyWorldConfig, write_corpus

CORPUS = TinyWorldConfig(
    num_train=24, num_heldout=8, num_labelled_per_class=2, num_test_per_class=1, image_size=32
)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the generated corpus: train/, retrieval.parquet and classification/."""
    folder = tmp_path_factory.mktemp("tiny_world")
    write_corpus(CORPUS, folder)
    return folder


@pytest.fixture(scope="module", params=[2, 0], ids=["ray", "local"])
def data_workers(request: pytest.FixtureRequest) -> int:
    """`machine.data_workers` for actors of Ray, and for processes of this machine without it."""
    if request.param:
        request.getfixturevalue("ray_cluster")
    return request.param


MakeShards = Callable[[Path, Sequence[list[str]]], Path]


@pytest.fixture(scope="session")
def make_shards(tiny_world: Path) -> MakeShards:
    """Write a folder of shards of ten samples at most, one sample per list of captions."""
    images = [file.read_bytes() for file in sorted((tiny_world / "train").glob("*.jpg"))]

    def make(folder: Path, captions: Sequence[list[str]]) -> Path:
        folder.mkdir(parents=True)
        size = (CORPUS.image_size, CORPUS.image_size)
        samples = [
            Sample(f"{i:09d}", f"http://x/{i}", texts, StoredImage(SUCCESS, None, images[i], size, size))
            for i, texts in enumerate(captions)
        ]
        shards = [
            write_shard(folder, f"{start // 10:05d}", samples[start : start + 10])
            for start in range(0, len(samples), 10)
        ]
        ShardsManifest.of(shards).write(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def shards(make_shards: MakeShards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 samples of the tiny world in three shards, each with two captions."""
    captions = [[f"a red circle number {i}", f"{i % 3} blue squares"] for i in range(24)]
    return make_shards(tmp_path_factory.mktemp("data") / "shards", captions)


@pytest.fixture
def tiny_run(shards: Path) -> Callable[..., RunConfig]:
    """A contrastive run of a few steps on two-layer towers; takes settings on top, by section."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "data": {"shards": str(shards)},
        "tokenizer": {"name": "clip_bpe", "context_length": 16},
        "image_encoder": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 2, "num_heads": 2},
        "mask": {"name": "random", "mask_ratio": 0.5},
        "objective": {
            "name": "contrastive",
            "embed_dim": 8,
            "text_encoder": {"width": 16, "depth": 1, "num_heads": 2},
        },
        "training": {"length": {"steps": 3}, "batch_size": 8},
        "optimizer": {"lr": 1e-3},
        "lr_schedule": {"warmup_steps": 1},
    }

    def make(**changes: Any) -> RunConfig:
        return build(RunConfig, Layers().add(settings, "tiny").add(changes, "test"))

    return make
