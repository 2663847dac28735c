import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import StoredImage
from vlp.shards.writing import Sample, write_shard


class Shards(NamedTuple):
    folder: Path
    images: list[bytes]
    captions: list[list[str]]


def jpeg(seed: int) -> bytes:
    """Noise, of a size and an encoded length of its own."""
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    noise = rng.integers(0, 256, (50 + seed, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Four shards of 16 samples in all; every fifth URL failed, and one shard holds failures only."""
    folder = tmp_path_factory.mktemp("shards")
    failure = StoredImage("http_404", "HTTP Error 404: Not Found")
    images, captions, stats = [], [], []
    for shard, num_urls in enumerate((8, 3, 2, 10)):
        samples = []
        for i in range(num_urls):
            seed = 10 * shard + i
            texts = [f"caption {k} of picture {seed}: größer & 日本 😀" for k in range(1 + seed % 3)]
            stored = failure
            if seed % 5 and shard != 2:
                encoded = jpeg(seed)
                stored = StoredImage("success", None, encoded, (80, 50 + seed), (100, 100), "sha")
                images.append(encoded)
                captions.append(texts)
            samples.append(Sample(f"{shard:05d}{i:04d}", f"https://x.org/{seed}.jpg", texts, stored))
        stats.append(write_shard(folder, f"{shard:05d}", samples))
    ShardsManifest.of(stats).write(folder)
    return Shards(folder, images, captions)
