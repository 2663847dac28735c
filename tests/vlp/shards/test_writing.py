"""A shard gives back what was put into it."""

import json
import random
import tarfile
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq

from vlp.shards.outcome import StoredImage
from vlp.shards.writing import Sample, write_shard


def one_caption_per_script() -> list[str]:
    """Letters of every script that Unicode names, each with control and format characters in between."""
    by_script: dict[str, list[str]] = {}
    for code in range(32, 0x1F000):
        name = unicodedata.name(chr(code), "")
        if name and unicodedata.category(chr(code))[0] in "LMN":
            by_script.setdefault(name.split()[0], []).append(chr(code))
    controls = [chr(code) for code in [*range(32), 127, 0x85, 0x200B, 0x202E, 0x2028, 0xFEFF, 0x1F600]]
    rng = random.Random(0)
    return [
        "".join(rng.sample(some, min(len(some), 8)) + rng.sample(controls, 4)) for some in by_script.values()
    ]


def test_captions_of_every_script_come_back_as_they_were(tmp_path: Path) -> None:
    captions = one_caption_per_script()
    assert len(captions) > 150
    samples = [
        Sample(f"{i:09d}", f"http://a/{i}", [caption, ""], StoredImage("success", None, b"x" * i))
        for i, caption in enumerate(captions)
    ]
    write_shard(tmp_path, "00000", samples)
    stored = pq.read_table(tmp_path / "00000.parquet")["captions"].to_pylist()
    assert stored == [[caption, ""] for caption in captions]
    with tarfile.open(tmp_path / "00000.tar") as tar:
        for i, caption in enumerate(captions):
            text, record = (tar.extractfile(f"{i:09d}.{kind}") for kind in ("txt", "json"))
            assert text is not None
            assert record is not None
            assert text.read().decode() == caption == json.load(record)["caption"]
