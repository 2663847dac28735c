"""Our shards are read by the readers of webdataset and open_clip, and are laid out as img2dataset's."""

import io
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vlp.shards.shard_set import ShardSet
from vlp.tokenizers.clip_bpe import ClipBPEConfig

wds: Any = pytest.importorskip("webdataset")


def to_pixels(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB")))


def own_samples(folder: Path) -> Iterator[tuple[torch.Tensor, str]]:
    """Pixels and first caption of every sample, as training reads them."""
    shards = ShardSet(folder)
    for i in range(len(shards)):
        yield to_pixels(Image.open(io.BytesIO(shards.image_bytes(i)))), shards.captions(i)[0]


def tars(folder: Path) -> list[str]:
    return [str(file) for file in sorted(folder.glob("*.tar"))]


def test_webdataset_reads_every_sample(shards: Path) -> None:
    dataset = wds.WebDataset(tars(shards), shardshuffle=False).decode("pil")
    samples = list(dataset.to_tuple("__key__", "jpg", "txt", "json"))
    expected = list(own_samples(shards))
    assert len(samples) == len(expected) == 24
    for i, ((key, image, text, row), (pixels, caption)) in enumerate(zip(samples, expected, strict=True)):
        assert (key, text, row["key"], row["caption"]) == (f"{i:09d}", caption, key, caption)
        assert torch.equal(to_pixels(image), pixels)


def tokenize(text: str) -> torch.Tensor:
    tokens, _ = ClipBPEConfig().build().encode([text])
    return torch.nn.functional.pad(tokens, (0, 77 - tokens.shape[1]))


OpenClipPairs = Callable[..., dict[bytes, torch.Tensor]]


@pytest.fixture
def open_clip_pairs(shards: Path, monkeypatch: pytest.MonkeyPatch) -> OpenClipPairs:
    """Tokens and pixels of all that open_clip's own training or validation reads in one epoch."""
    data = pytest.importorskip("open_clip_train.data")
    # open_clip asks for webdataset up to 0.2.86, which did not mark the end of a tar.
    monkeypatch.setattr(data, "tar_file_expander", partial(data.tar_file_expander, eof_value=None))

    def read(*, is_train: bool, **changes: Any) -> dict[bytes, torch.Tensor]:
        urls = "::".join(tars(shards))
        settings = {
            "train_data": urls,
            "val_data": urls,
            "train_num_samples": 24,
            "val_num_samples": 24,
            "train_data_upsampling_factors": None,
            "dataset_resampled": False,
            "seed": 0,
            "batch_size": 4,
            "workers": 0,
            "world_size": 1,
        }
        arguments = Namespace(**(settings | changes))
        info = data.get_wds_dataset(arguments, to_pixels, is_train=is_train, tokenizer=tokenize)
        images, tokens = (torch.cat(parts) for parts in zip(*info.dataloader, strict=True))
        assert len(images) == 24
        return {text.numpy().tobytes(): image for image, text in zip(images, tokens, strict=True)}

    return read


def own_pairs(folder: Path) -> dict[bytes, torch.Tensor]:
    return {tokenize(caption)[0].numpy().tobytes(): pixels for pixels, caption in own_samples(folder)}


@pytest.mark.parametrize("is_train", [True, False])
def test_open_clip_reads_every_sample(shards: Path, is_train: bool, open_clip_pairs: OpenClipPairs) -> None:
    found, expected = open_clip_pairs(is_train=is_train), own_pairs(shards)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[tokens], pixels) for tokens, pixels in expected.items())


@pytest.mark.parametrize(
    "changes", [{"workers": 2}, {"dataset_resampled": True}], ids=lambda x: next(iter(x))
)
def test_open_clip_reads_only_our_pairs_by_several_processes_and_with_replacement(
    shards: Path, changes: dict[str, Any], open_clip_pairs: OpenClipPairs
) -> None:
    found, expected = open_clip_pairs(is_train=True, **changes), own_pairs(shards)
    assert found
    assert all(torch.equal(expected[tokens], pixels) for tokens, pixels in found.items())


def test_files_are_those_of_img2dataset(shards: Path, tmp_path: Path) -> None:
    """The same samples through img2dataset's writer: equal member names, and its columns among ours."""
    from img2dataset.writer import WebDatasetSampleWriter

    index = pq.read_table(shards / "00000.parquet")
    columns = ["url", "caption", "key", "status", "error_message", "width", "height"]
    columns += ["original_width", "original_height", "sha256"]
    schema = pa.schema([index.schema.field(name) for name in columns])
    writer = WebDatasetSampleWriter(0, str(tmp_path), True, 5, schema, "jpg")
    own = ShardSet(shards)
    for i, row in enumerate(index.select(columns).to_pylist()):
        writer.write(own.image_bytes(i), row["key"], row["caption"], row)
    writer.close()
    ours, theirs = (
        [
            {name: value for name, value in sample.items() if not name.startswith("__") or name == "__key__"}
            for sample in wds.WebDataset(str(folder / "00000.tar"), shardshuffle=False)
        ]
        for folder in (shards, tmp_path)
    )
    assert len(ours) == 10
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        assert all(mine[name] == other[name] for name in ("__key__", "jpg", "txt"))
    assert pq.read_table(tmp_path / "00000.parquet").equals(index.select(columns))
    assert {file.name for file in tmp_path.iterdir()} <= {file.name for file in shards.iterdir()}
