"""Training images per second of a core's time, by this loader and by open_clip's chain, side by side.

python tests/benchmarks/loader.py [PARQUET] [--count 4000]    PARQUET has a column `image`; by default COCO
"""

import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.parquet as pq
import torch
import webdataset as wds
from harness import REAL_DATA, command_line, compare, report, skip
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader

from vlp.core.normalization import MEAN_STD
from vlp.data.config import DataConfig
from vlp.data.loader import Collate, TrainingPairs, data_order
from vlp.data.order import rank_batches
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import StoredImage
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.local import LocalFolder
from vlp.shards.writing import Sample, write_shard

WIDTH, HEIGHT = 470, 400
SHARD_SIZE, BATCH_SIZE, IMAGE_SIZE = 500, 100, 224
COCO = REAL_DATA / "coco_mini" / "val2017_subset.parquet"


class NoTokens:
    """Captions are read and not tokenized: the two chains differ in their tokenizers, too."""

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(captions), 1), torch.ones(len(captions))


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("images", type=Path, nargs="?", default=COCO)
    parser.add_argument("--count", type=int, default=4000, help="images of an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.images.is_file():
        skip("loader", f"there are no photographs at {arguments.images}")
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs = pq.read_table(arguments.images)["image"].to_pylist()
        write_shards(folder, photographs, arguments.count)
        chains = ours(folder, arguments.count), theirs(folder)
        result = compare(
            f"JPEG of {WIDTH} x {HEIGHT} to RandomResizedCrop({IMAGE_SIZE}), per core",
            *(partial(exhaust, chain) for chain in chains),
            amount=arguments.count,
            unit="images/s",
            peer_name="open_clip's chain",
            runs=arguments.rounds,
            clock=time.process_time,
        )
    report("loader", [result], arguments.results)


def exhaust(chain: Callable[[], Iterable]) -> None:
    """Take every batch."""
    for _ in chain():
        pass


def ours(folder: Path, num_images: int) -> Callable[[], Iterator]:
    """Batches of bytes, as they leave the loader's processes: they are normalized on the device."""
    pairs = TrainingPairs(
        ShardSet(folder),
        DataConfig(shards=LocalFolder(folder), crop_scale=(0.9, 1.0)),
        image_size=IMAGE_SIZE,
        seed=0,
    )

    def batches() -> Iterator:
        steps = range(num_images // BATCH_SIZE)
        draws = rank_batches(
            data_order(pairs.shards, pairs.config, seed=0, batch_size=BATCH_SIZE),
            steps=steps,
            rank=0,
            world_size=1,
        )
        tokenizer: Any = NoTokens()  # as much of one as a loader needs
        loader = DataLoader(pairs, batch_sampler=draws, collate_fn=Collate(tokenizer))
        return (batch.images for batch, _ in loader)

    return batches


def theirs(folder: Path) -> Callable[[], Iterator]:
    """The steps of open_clip's training chain, with webdataset's reader."""
    mean, std = MEAN_STD["clip"]
    preprocess = open_clip.image_transform(IMAGE_SIZE, is_train=True, mean=mean, std=std)
    urls = [str(file) for file in sorted(folder.glob("*.tar"))]
    steps = (
        wds.SimpleShardList(urls),
        wds.tarfile_to_samples(),
        wds.shuffle(bufsize=1000, initial=500),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=preprocess, text=lambda text: torch.zeros(1)),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH_SIZE),
    )
    loader = wds.WebLoader(wds.DataPipeline(*steps), batch_size=None, num_workers=0)
    return lambda: (images for images, _ in loader)


def write_shards(folder: Path, photographs: list[bytes], num_images: int) -> None:
    """Images of four photographs each: they have the detail of photographs of their size."""
    fitted = [
        ImageOps.fit(Image.open(io.BytesIO(p)).convert("RGB"), (WIDTH // 2, HEIGHT // 2)) for p in photographs
    ]
    rng = np.random.default_rng(0)
    shards = []
    for start in range(0, num_images, SHARD_SIZE):
        samples = []
        for i in range(start, min(start + SHARD_SIZE, num_images)):
            image = Image.new("RGB", (WIDTH, HEIGHT))
            for k, photograph in enumerate(rng.integers(len(fitted), size=4)):
                image.paste(fitted[photograph], (k % 2 * WIDTH // 2, k // 2 * HEIGHT // 2))
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=90)
            stored = StoredImage("success", None, stream.getvalue(), image.size, image.size, "")
            samples.append(Sample(f"{i:09d}", "https://x.org", ["a photo"], stored))
        shards.append(write_shard(folder, f"{start // SHARD_SIZE:05d}", samples))
    ShardsManifest.of(shards).write(folder)


if __name__ == "__main__":
    main()
