"""Tars that hold no captions go through every command, and train what learns from images alone."""

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipelines.commands.main import main
from pipelines.shards.verify import verify
from tests.paths import REPOSITORY
from vlp.shards.shard_set import ShardSet

SMALL = (
    *("image_encoder.image_size=32", "image_encoder.patch_size=8", "image_encoder.width=16"),
    *("image_encoder.depth=1", "image_encoder.num_heads=2", "training.precision=fp32"),
    *("training.length.steps=2", "training.batch_size=8", "lr_schedule.warmup_steps=1"),
    *("machine.num_workers=0", "machine.data_workers=0"),
)
DECODER = ("objective.decoder_width=16", "objective.decoder_depth=1", "objective.decoder_heads=2")


def vlp(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images with their classes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    with tarfile.open(tmp_path / "images/train.tar", "w") as tar:
        for i in range(12):
            add(tar, f"n01/{i}.png", picture(i))
            add(tar, f"n01/{i}.cls", b"3")
    return tmp_path / "images"


def test_mae_is_trained_on_them_and_what_reads_captions_refuses_them(folder: Path) -> None:
    indexed = vlp("data", "index", folder, "machine.data_workers=0")
    assert "12 samples in 1 tars, 12 without captions" in indexed.stdout
    assert list(verify(folder)) == []
    trained = vlp("pretrain", f"{REPOSITORY}/conf/run/mae.yaml", *SMALL, *DECODER, f"data.shards={folder}")
    assert trained.exit_code == 0, trained.output
    for name in ("clip", "superclass"):
        refused = vlp("pretrain", f"{REPOSITORY}/conf/run/{name}.yaml", *SMALL, f"data.shards={folder}")
        assert refused.exit_code == 2
        assert "holds 12 images and no caption; objectives that learn from images alone" in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_they_are_copied_without_captions(folder: Path) -> None:
    vlp("data", "index", folder, "machine.data_workers=0")
    other = Path(shutil.copytree(folder, "other"))
    assert vlp("data", "subset", folder, "width>=30", "-o", "some").exit_code == 0
    assert vlp("data", "merge", folder, other, "-o", "all").exit_code == 0
    for copied in map(Path, ("some", "all")):
        read = ShardSet(copied)
        assert [(read.image_bytes(i), read.captions(i)) for i in range(len(read))] == [
            (picture(i), []) for i in range(12)
        ]
        assert list(verify(copied)) == []


def test_a_run_that_reads_captions_leaves_images_without_them_out(folder: Path) -> None:
    with tarfile.open(folder / "more.tar", "w") as tar:
        for i in range(12, 20):
            add(tar, f"{i}.png", picture(i))
            add(tar, f"{i}.txt", f"caption {i}".encode() if i % 2 else b" ")
    vlp("data", "index", folder, "machine.data_workers=0")
    assert len(ShardSet(folder)) == 20
    read = ShardSet(folder, captioned=True)
    assert [(read.image_bytes(i), read.captions(i)) for i in range(len(read))] == [
        (picture(i), [f"caption {i}"]) for i in (13, 15, 17, 19)
    ]
