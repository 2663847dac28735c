"""Peak memory of a list, of a download and of a loader, and of ones ten times as large.

python tests/benchmarks/memory.py [--urls 1000000] [--images 2000] [--samples 10000]
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import Result, command_line, in_fresh_process, report
from image_server import serve

from vlp.shards.storage.address import open_folder

TIMES_LARGER = 10
SHARD_SIZE = 500
LOCAL = ("127.0.0.0/8",)


def write_list(file: Path, num_urls: int) -> None:
    """A list in which every URL has two rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"url": pa.string(), "caption": pa.string()})
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, 2 * num_urls, 100_000):
            rows = range(start, min(start + 100_000, 2 * num_urls))
            urls = [f"http://pictures.example/{i % num_urls}.jpg" for i in rows]
            writer.write_table(pa.table({"url": urls, "caption": [f"a caption of {url}" for url in urls]}))


def plan_list(file: Path, num_urls: int) -> None:
    """What a download does before its first request."""
    from pipelines.ingest.download import plan
    from pipelines.ingest.settings import DownloadConfig

    config = DownloadConfig(url_list=file, max_grouping_bytes=2**27)
    assert plan(config, file.with_suffix("")).num_urls == num_urls


def ingest(folder: Path, url: str, num_images: int) -> None:
    """What one actor of a download does with its shards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.ingest.download import plan
    from pipelines.ingest.settings import DownloadConfig
    from pipelines.ingest.worker import IngestShard

    file, output = folder / "urls.parquet", open_folder(folder / f"ingested-{num_images}")
    urls = [f"{url}/{i}.jpg" for i in range(num_images)]
    pq.write_table(pa.table({"url": urls, "caption": urls}), file)
    config = DownloadConfig(
        url_list=file, number_sample_per_shard=SHARD_SIZE, max_buffer_bytes=2**25, allowed_networks=LOCAL
    )
    worker = IngestShard(config, output, 1, lambda name, outcomes: True)
    for name in plan(config, output).shards:
        assert not worker({"name": name})["failure"]


def write_shards(folder: Path, image: bytes, num_shards: int) -> None:
    """A folder of shards whose tars are links to one file."""
    from vlp.shards.contents import ShardsManifest
    from vlp.shards.outcome import StoredImage
    from vlp.shards.writing import Sample, write_shard

    folder.mkdir()
    stored = StoredImage("success", None, image, (64, 64), (64, 64), "")
    samples = [Sample(f"{i:09d}", "http://x", ["a photo of something"], stored) for i in range(SHARD_SIZE)]
    stats = write_shard(folder, "00000", samples)
    for shard in range(1, num_shards):
        for suffix in (".tar", ".parquet"):
            os.link(folder / f"00000{suffix}", folder / f"{shard:05d}{suffix}")
    ShardsManifest.of(replace(stats, name=f"{shard:05d}") for shard in range(num_shards)).write(folder)


def load(folder: Path) -> None:
    """An epoch of the loader with `shuffle: block`."""
    from vlp.data.config import DataConfig
    from vlp.data.loader import TrainingPairs, data_order, open_shards
    from vlp.data.order import rank_batches

    config = DataConfig(shards=open_folder(folder), shuffle="block", shuffle_window=4)
    pairs = TrainingPairs(open_shards(config, captioned=True), config, image_size=32, seed=0)
    order = data_order(pairs.shards, config, seed=0, batch_size=250)
    for draws in rank_batches(order, steps=range(len(pairs) // 250), rank=0, world_size=1):
        for draw in draws:
            _ = pairs[draw]


def compare(what: str, work: Callable[..., Any], small: Sequence[Any], large: Sequence[Any]) -> Result:
    """Peak memory of the larger work beside that of the smaller."""
    peaks = [in_fresh_process(work, *arguments).peak_mib for arguments in (large, small)]
    settings = {"unit": "MiB", "peer_name": "one time the size"}
    return Result(what=f"{what}, {TIMES_LARGER} times", ours=peaks[:1], peer=peaks[1:], **settings)


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__)
    parser.add_argument("--urls", type=int, default=1_000_000, help="of the smaller list")
    parser.add_argument("--images", type=int, default=2_000, help="of the smaller download")
    parser.add_argument("--samples", type=int, default=10_000, help="of the smaller data set")
    sizes = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    photograph = cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (7, 7), 2))[1].tobytes()
    small = cv2.imencode(".jpg", pixels[:64, :64])[1].tobytes()
    with tempfile.TemporaryDirectory() as name, serve({"*": photograph}) as server:
        folder, results = Path(name), []
        both = (1, TIMES_LARGER)
        lists = [(folder / f"{times}.parquet", times * sizes.urls) for times in both]
        for file, num_urls in lists:
            in_fresh_process(write_list, file, num_urls)
        results.append(compare(f"plan of {sizes.urls:,} URLs in two rows each", plan_list, *lists))
        downloads = [(folder, server.url, times * sizes.images) for times in both]
        results.append(compare(f"download of {sizes.images:,} images by one actor", ingest, *downloads))
        sets = [(folder / f"shards-{times}",) for times in both]
        for times, (shards,) in zip(both, sets, strict=True):
            write_shards(shards, small, times * sizes.samples // SHARD_SIZE)
        results.append(compare(f"loader, {sizes.samples:,} samples shuffled by blocks", load, *sets))
        report("memory", results, sizes.results)


if __name__ == "__main__":
    main()
