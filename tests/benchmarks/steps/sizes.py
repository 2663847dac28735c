"""The models and batches whose steps are compared, and the photographs with captions that fill them."""

from dataclasses import dataclass, replace

import pyarrow.parquet as pq
from harness import REAL_DATA
from torch import Tensor

from vlp.core.batch import Batch
from vlp.core.normalization import Normalization
from vlp.data.loader import load_images
from vlp.tokenizers.clip_bpe import ClipBPEConfig

PHOTOGRAPHS = REAL_DATA / "flickr8k" / "train.parquet"
NUM_BATCHES = 4
REBUILD_BATCH_SIZE = {"cpu": 8, "cuda": 256}
"""By device."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A CLIP with as many text layers as image layers; heads of 64."""

    name: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    text_width: int
    embed_dim: int
    batch_size: dict[str, int]
    """By device; on a GPU large enough to fill one."""
    has_peer: bool = True
    """Whether open_clip's step is measured too."""


VIT_B16 = Size(
    name="ViT-B/16",
    image_size=224,
    patch_size=16,
    width=768,
    depth=12,
    text_width=512,
    embed_dim=512,
    batch_size={"cpu": 8, "cuda": 256},
)
SMALL = Size(
    name="small",
    image_size=64,
    patch_size=8,
    width=192,
    depth=6,
    text_width=192,
    embed_dim=192,
    batch_size={"cpu": 128, "cuda": 1024},
)
LARGE_BATCH = replace(VIT_B16, batch_size=VIT_B16.batch_size | {"cpu": 32}, has_peer=False)
"""What every step costs whatever its batch, such as AdamW's update, is less of it."""
SIZES = {"vit_b16": VIT_B16, "small": SMALL, "large_batch": LARGE_BATCH}


def photographs(batch_size: int, image_size: int, normalization: Normalization) -> list[Tensor]:
    """The images of some batches: (B, 3, H, H) each."""
    table = pq.read_table(PHOTOGRAPHS, columns=["image"])["image"]
    encoded = [
        row["bytes"] if isinstance(row, dict) else row
        for row in table[: NUM_BATCHES * batch_size].to_pylist()
    ]
    parts = [encoded[i : i + batch_size] for i in range(0, len(encoded), batch_size)]
    return [load_images(part, image_size=image_size, normalization=normalization) for part in parts]


def captions(batch_size: int) -> list[list[str]]:
    """The first caption of each image of the same batches."""
    table = pq.read_table(PHOTOGRAPHS, columns=["captions"])["captions"]
    first = [texts[0] for texts in table[: NUM_BATCHES * batch_size].to_pylist()]
    return [first[i : i + batch_size] for i in range(0, len(first), batch_size)]


def batches(size: Size, device: str) -> list[Batch]:
    """Batches as the loader makes them, on the device."""
    batch_size = size.batch_size[device]
    images = photographs(batch_size, size.image_size, "clip")
    tokenizer = ClipBPEConfig().build()
    texts = [tokenizer.encode(part) for part in captions(batch_size)]
    found = [Batch(x, *text) for x, text in zip(images, texts, strict=True)]
    return [Batch(*(tensor.to(device) for tensor in batch[:3])) for batch in found]
