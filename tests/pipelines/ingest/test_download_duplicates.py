"""Of equal images, and of images that look alike, the first stays, whatever order the shards were made in."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.config.machine import MachineConfig
from pipelines.corpus.serve import ImageServer
from pipelines.ingest.download import download
from pipelines.ingest.duplicates import find_duplicates, first_alike
from pipelines.ingest.image import difference_hash
from pipelines.ingest.settings import DownloadConfig
from pipelines.tracking.journal import Journal
from tests.servers.ports import free_port
from vlp.shards.contents import ShardsManifest
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.address import open_folder

PORT = free_port()


def picture(seed: int) -> Image.Image:
    """Smooth blobs, as different from one seed to the next as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (96, 80), interpolation=cv2.INTER_CUBIC))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


ORIGINALS = [jpeg(picture(seed), quality=95) for seed in range(12)]
ALIKE = [jpeg(picture(seed).resize((120, 100)), quality=60) for seed in range(4)]
FILES = [*ORIGINALS, ORIGINALS[3], *ALIKE, jpeg(picture(50)), ORIGINALS[0], ALIKE[1], jpeg(picture(50))]
ORIGINAL_OF = [*range(12), 3, 0, 1, 2, 3, 17, 0, 1, 17]
EQUAL_TO = [*range(12), 3, 13, 14, 15, 16, 17, 0, 14, 17]


def brute_force(hashes: list[int], distance: int) -> list[int]:
    kept: list[int] = []
    first = []
    for i, value in enumerate(hashes):
        alike = [j for j in kept if bin(value ^ hashes[j]).count("1") <= distance]
        first.append(alike[0] if alike else i)
        if not alike:
            kept.append(i)
    return first


@pytest.mark.parametrize("distance", [0, 1, 3, 7, 15])
def test_images_that_look_alike_are_those_a_comparison_of_all_finds(distance: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**64, 20, dtype=np.uint64)
    bits = [rng.choice(64, rng.integers(0, 10), replace=False).tolist() for _ in range(400)]
    flips = [sum(1 << bit for bit in flipped) for flipped in bits]
    hashes = [int(centres[i % 20]) ^ flip for i, flip in enumerate(flips)]
    found = first_alike(np.array(hashes, np.uint64), distance)
    assert found.tolist() == brute_force(hashes, distance)
    assert 20 <= len(set(found.tolist())) < 400


def test_of_equal_digests_the_first_stays_whatever_is_stored_already(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    digests = [f"{value:064x}" for value in rng.integers(0, 50, 300)]
    status = rng.choice(["success", "duplicate", "timeout"], 300).tolist()
    for shard in range(3):
        rows = range(100 * shard, 100 * shard + 100)
        index = {"key": [f"{i:03d}" for i in rows], "sha256": [digests[i] for i in rows]}
        index |= {"dhash": pa.array([None] * 100, pa.uint64()), "status": [status[i] for i in rows]}
        pq.write_table(pa.table(index), tmp_path / f"{shard:05d}.parquet")
    names = [f"{shard:05d}" for shard in range(3)]
    drops = find_duplicates(open_folder(tmp_path), names, near=None, max_bytes=2**28)
    first = {}
    for i in range(300):
        if status[i] != "timeout":
            first.setdefault(digests[i], i)
    again = [i for i in range(300) if status[i] == "success" and first[digests[i]] != i]
    expected = {(f"{i // 100:05d}", f"{i:03d}"): ("duplicate", f"as {first[digests[i]]:03d}") for i in again}
    assert {(shard, key): drop for shard in drops for key, drop in drops[shard].items()} == expected


def test_the_hash_outlives_another_size_and_quality_and_tells_images_apart() -> None:
    hashes = [difference_hash(image) for image in ORIGINALS]
    for original, alike in zip(hashes, map(difference_hash, ALIKE), strict=False):
        assert (original ^ alike).bit_count() <= 3
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 10


@pytest.fixture(scope="module")
def url_list(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("images")
    for i, content in enumerate(FILES):
        (folder / f"{i:02d}.jpg").write_bytes(content)
    rows = [{"url": f"http://127.0.0.1:{PORT}/{i:02d}.jpg", "caption": str(i)} for i in range(len(FILES))]
    (folder / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ImageServer(folder, port=PORT):
        yield folder / "urls.jsonl"


def run(url_list: Path, output: Path, *, workers: int = 0, **settings: Any) -> ShardsManifest:
    config = DownloadConfig(
        url_list=url_list,
        number_sample_per_shard=5,
        image_size=64,
        allowed_networks=("127.0.0.0/8",),
        **settings,
    )
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name="download", tags={})
    return download(config, output, machine=MachineConfig(data_workers=workers), journal=journal)


def kept(folder: Path) -> list[int]:
    shards = ShardSet(folder)
    return [int(shards.captions(i)[0]) for i in range(len(shards))]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(("kind", "first"), [("exact", EQUAL_TO), ("near", ORIGINAL_OF)])
def test_the_first_of_a_kind_stays(kind: str, first: list[int], url_list: Path, tmp_path: Path) -> None:
    manifest = run(url_list, tmp_path / "shards", drop_duplicates=kind)
    assert kept(tmp_path / "shards") == sorted(set(first))
    num_equal = len(FILES) - len(set(EQUAL_TO))
    expected = {"success": len(set(first)), "duplicate": num_equal}
    if kind == "near":
        expected["near_duplicate"] = len(FILES) - num_equal - expected["success"]
    assert manifest.outcomes == expected
    assert manifest.num_urls == len(FILES)
    for file in (tmp_path / "shards").glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            if row["status"] != "success":
                assert int(row["error_message"].split()[-1]) < int(row["key"])


def test_neither_the_number_of_workers_nor_a_cut_at_any_point_changes_a_byte(
    ray_cluster: None, url_list: Path, tmp_path: Path
) -> None:
    calm, cut, plain = (tmp_path / name for name in ("calm", "cut", "plain"))
    run(url_list, calm, drop_duplicates="near")
    run(url_list, cut, drop_duplicates="near", workers=1)
    assert digests(cut) == digests(calm)
    # A driver that was killed while duplicates were dropped: a shard's tar is new, its index is not yet.
    run(url_list, plain)
    for name in ("00002", "00003"):
        shutil.copy(plain / f"{name}.tar", cut)
        for suffix in (".parquet", "_stats.json"):
            shutil.copy(plain / f"{name}{suffix}", cut)
    shutil.copy(calm / "00002.tar", cut)
    (cut / "manifest.json").unlink()
    for name in ("00002", "00003"):  # near duplicates are told by a hash that a plain download lacks
        old = pq.read_table(cut / f"{name}.parquet")
        new = pq.read_table(calm / f"{name}.parquet")
        index = old.schema.get_field_index("dhash")
        pq.write_table(old.set_column(index, "dhash", new["dhash"]), cut / f"{name}.parquet")
    run(url_list, cut, drop_duplicates="near")
    assert digests(cut) == digests(calm)
