"""Sets of any form give the same features, each part of them computed once, in bounded memory."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from tests.servers.object_store import ObjectStore
from vlp.data import image_tables
from vlp.data.image_tables import ImageTable
from vlp.encoders.vit import ViTConfig
from vlp.evaluation.embedder import Embedder
from vlp.evaluation.feature_store import FeatureStore
from vlp.masking.none import NoMask
from vlp.objectives import Vocabulary
from vlp.objectives.superclass import SuperClass, SuperClassConfig
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import StoredImage
from vlp.shards.storage.digests import Digests, sha256
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder
from vlp.shards.writing import Sample, write_shard
from vlp.tiny_world import TinyWorldConfig, write_corpus
from vlp.tokenizers.clip_bpe import ClipBPEConfig

NUM_IMAGES = 22


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Images, their captions, and labels."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(TinyWorldConfig(num_train=1, num_heldout=NUM_IMAGES, image_size=32), folder)
    found = pq.read_table(folder / "retrieval.parquet", columns=["image", "captions"])
    return found.append_column("label", [list(range(NUM_IMAGES))])


class Counting(SuperClass):
    """Counts the images that it is given."""

    num_images = 0

    def features(self, images: Tensor) -> Tensor:
        self.num_images += len(images)
        return super().features(images)


def embedder(store: FeatureStore | None = None) -> Embedder:
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=32, patch_size=8, width=16, depth=1, num_heads=2).build()
    tokenizer = ClipBPEConfig(context_length=16).build()
    vocabulary = Vocabulary(tokenizer.vocab_size, 16)
    objective = Counting(SuperClassConfig(), encoder, NoMask(), vocabulary=vocabulary).eval()
    return Embedder(objective, tokenizer, image_size=32, normalization="clip", store=store)


def counted(model: Embedder) -> int:
    assert isinstance(model.objective, Counting)
    return model.objective.num_images


def as_folder(table: pa.Table, folder: Path) -> Path:
    """Two Parquet files, the first in groups of rows that no part agrees with."""
    folder.mkdir()
    pq.write_table(table.slice(0, 17), folder / "0.parquet", row_group_size=3)
    pq.write_table(table.slice(17), folder / "1.parquet")
    return folder


def as_shards(table: pa.Table, folder: Path) -> Path:
    folder.mkdir()
    samples = [
        Sample(
            f"{i:09d}",
            f"http://x/{i}",
            row["captions"],
            StoredImage("success", None, row["image"], (32, 32), (32, 32)),
        )
        for i, row in enumerate(table.to_pylist())
    ]
    shards = [write_shard(folder, f"{i:05d}", samples[10 * i : 10 * i + 10]) for i in range(3)]
    ShardsManifest.of(shards).write(folder)
    return folder


def test_files_folders_and_shards_are_the_same_images(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_tables, "PART_ROWS", 5)
    pq.write_table(table, tmp_path / "all.parquet")
    places = (
        tmp_path / "all.parquet",
        as_folder(table, tmp_path / "folder"),
        as_shards(table, tmp_path / "shards"),
    )
    expected = table["image"].to_pylist()
    features = embedder().features(ImageTable(places[0], "label"))
    for place in places:
        read = ImageTable(place, "captions")
        read.check()
        assert read.num_rows == NUM_IMAGES
        assert list(read.images()) == expected
        assert read.labels() == table["captions"].to_pylist()
        assert list(read.images_at([0, 4, 5, 16, 21])) == [expected[i] for i in (0, 4, 5, 16, 21)]
        assert max(len(part.rows) for part in read.parts()) <= 5
        torch.testing.assert_close(embedder().features(read), features)


def test_an_image_without_captions_of_shards_is_of_no_set_of_captions(
    table: pa.Table, tmp_path: Path
) -> None:
    bare = table.set_column(1, "captions", [[[], *table["captions"].to_pylist()[1:]]])
    read = ImageTable(as_shards(bare, tmp_path / "shards"), "captions")
    assert list(read.images()) == table["image"].to_pylist()[1:]
    assert ImageTable(tmp_path / "shards", "key").num_rows == NUM_IMAGES


def test_a_set_in_an_object_store_is_read_there_and_cached_there(
    object_store: ObjectStore, table: pa.Table, tmp_path: Path
) -> None:
    bucket = object_store.bucket()
    for file in as_folder(table, tmp_path / "folder").iterdir():
        (bucket / "scenes").write(file.name, file.read_bytes())
    read = ImageTable(bucket / "scenes", "captions")
    read.check()
    assert list(read.images()) == table["image"].to_pylist()
    assert read.labels() == table["captions"].to_pylist()
    digests = Digests(bucket / "digests")
    features = []
    for expected in (NUM_IMAGES, 0):
        model = embedder(FeatureStore(bucket / "features", model="a", identify=digests.of))
        features.append(model.features(read))
        assert counted(model) == expected
    assert torch.equal(*features)


def test_parts_that_are_there_are_not_encoded_again_wherever_the_set_lies(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_tables, "PART_ROWS", 5)

    def features(place: Path, model: str = "a") -> tuple[int, Tensor]:
        store = FeatureStore(LocalFolder(tmp_path / "store"), model=model, identify=sha256)
        encoder = embedder(store)
        found = encoder.features(ImageTable(place, "label"))
        return counted(encoder), found

    number, whole = features(as_folder(table, tmp_path / "a"))
    assert number == NUM_IMAGES
    (tmp_path / "a").rename(tmp_path / "b")
    assert features(tmp_path / "b")[0] == 0
    lost = sorted((tmp_path / "store").iterdir())[2]
    size = len(np.load(lost))
    lost.unlink()
    number, again = features(tmp_path / "b")
    assert number == size
    assert torch.equal(again, whole)
    shutil.copy(tmp_path / "b" / "1.parquet", tmp_path / "b" / "2.parquet")
    assert features(tmp_path / "b")[0] == 0
    pq.write_table(table.slice(16), tmp_path / "b" / "2.parquet")
    assert features(tmp_path / "b")[0] == NUM_IMAGES - 16
    assert features(tmp_path / "b", model="b")[0] > NUM_IMAGES


def test_texts_are_encoded_once(tmp_path: Path) -> None:
    """An objective without texts stands for one that is not asked."""
    texts = [f"a photo of {i}" for i in range(300)]

    def store() -> FeatureStore:
        return FeatureStore(LocalFolder(tmp_path), model="a", identify=sha256)

    class Texts(Counting):
        def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
            return tokens[:, :4].float()

    asked, silent = embedder(store()), embedder(store())
    asked.objective.__class__ = Texts
    found = asked.embed_texts(texts)
    assert found.shape == (300, 4)
    assert torch.equal(silent.embed_texts(texts), found)
    with pytest.raises(TypeError, match="no text encoder"):
        silent.embed_texts(texts[1:])


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    class Watched(LocalFolder):
        num_read = 0

        def open(self, name: str) -> pa.NativeFile:
            type(self).num_read += 1
            return super().open(name)

    folder: Folder = Watched(tmp_path)
    file = tmp_path / "set.parquet"

    def digest() -> tuple[str, int]:
        before = Watched.num_read
        found = Digests(LocalFolder(tmp_path / "memory")).of(folder, file.name)
        return found, Watched.num_read - before

    file.write_bytes(b"one")
    long_ago = file.stat().st_mtime - 100
    os.utime(file, (long_ago, long_ago))
    first = digest()
    assert first == (sha256(folder, file.name), 1)
    assert digest() == (first[0], 0)
    file.write_bytes(b"two")
    assert [digest(), digest()] == [(sha256(folder, file.name), 1)] * 2  # it was changed just now
