"""A run that a laptop trains: CLIP on the pictures of the sample corpus, as settings of `vlp pretrain`."""

import json
from pathlib import Path
from typing import Any

from pipelines.tracking.journal import Journal
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.writing import Sample, write_shard
from vlp.tiny_world import TinyWorldConfig, write_corpus

REPOSITORY = Path(__file__).parents[3]
IMAGE_SIZE, NUM_IMAGES, SHARD_SIZE = 64, 2000, 250
SETTINGS: dict[str, Any] = {
    "tokenizer": "{name: clip_bpe, context_length: 40}",
    "image_encoder": "{image_size: 64, patch_size: 8, width: 128, depth: 4, num_heads: 4}",
    "objective.embed_dim": 128,
    "objective.text_encoder": "{width: 128, depth: 2, num_heads: 4}",
    "training.batch_size": 128,
    "training.precision": "fp32",
    "lr_schedule.warmup_steps": 1,
}


def arguments(shards: Path, output: Path, **changes: Any) -> list[str]:
    """What follows `vlp pretrain`; changes are settings by dotted key."""
    settings = SETTINGS | {"data.shards": shards, "machine.storage": output.parent} | changes
    files = [REPOSITORY / "conf/run/clip.yaml", REPOSITORY / "conf/machine/laptop.yaml"]
    return [*map(str, files), *(f"{key}={value}" for key, value in settings.items()), "-o", str(output)]


def write_shards(folder: Path, num_images: int) -> Path:
    """The sample corpus as shards; returns their folder."""
    corpus, shards = folder / "corpus", folder / "shards"
    write_corpus(TinyWorldConfig(num_train=num_images, image_size=IMAGE_SIZE), corpus)
    shards.mkdir()
    rows = [json.loads(line) for line in (corpus / "train" / "captions.jsonl").read_text().splitlines()]
    size = (IMAGE_SIZE, IMAGE_SIZE)
    samples = [
        Sample(
            f"{i:09d}",
            f"https://x.org/{i}",
            row["captions"],
            StoredImage(SUCCESS, None, (corpus / "train" / row["file"]).read_bytes(), size, size, ""),
        )
        for i, row in enumerate(rows)
    ]
    stats = [
        write_shard(shards, f"{start // SHARD_SIZE:05d}", samples[start : start + SHARD_SIZE])
        for start in range(0, num_images, SHARD_SIZE)
    ]
    ShardsManifest.of(stats).write(shards)
    return shards


def run_journal(storage: Path) -> Journal:
    """The record of the one command that ran with this folder as `machine.storage`."""
    (file,) = storage.glob("journals/*/*/journal.jsonl")
    return Journal(file.parent)


def step_times(journal: Journal) -> dict[int, float]:
    """When the steps that were logged had ended, in seconds since the epoch."""
    records = (record for record in journal.read() if record.kind == "metrics")
    return {r.fields["step"]: r.time / 1000 for r in records if "train/loss" in r.fields["metrics"]}
