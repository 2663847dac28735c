"""A folder of shards reads back what was written, by our reader and by those of others."""

import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from vlp.data.image_tables import ImageTable
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import StoredImage
from vlp.shards.shard_set import ShardSet
from vlp.shards.writing import Sample, write_shard


def test_every_sample_is_read_back_exactly_in_the_order_of_the_keys(shards) -> None:
    read = ShardSet(shards.folder)
    assert len(read) == len(shards.images) == 16
    assert [read.image_bytes(i) for i in range(16)] == shards.images
    assert [read.captions(i) for i in range(16)] == shards.captions


def test_random_access_in_any_order_reads_the_same(shards) -> None:
    read = ShardSet(shards.folder)
    for i in (15, 0, 9, 15, 3, 8, 7):
        assert read.image_bytes(i) == shards.images[i]


def test_a_pickled_set_that_was_read_from_reads_on_in_another_process(shards, tmp_path: Path) -> None:
    read = ShardSet(shards.folder)
    for i in range(16):
        read.image_bytes(i)
    (tmp_path / "set.pickle").write_bytes(pickle.dumps(read))
    script = """
import pickle, sys
read = pickle.load(open(sys.argv[1], "rb"))
result = [read.digest, [(read.image_bytes(i), read.captions(i)) for i in range(len(read))]]
sys.stdout.buffer.write(pickle.dumps(result))
"""
    arguments = [sys.executable, "-c", script, str(tmp_path / "set.pickle")]
    digest, samples = pickle.loads(subprocess.run(arguments, capture_output=True, check=True).stdout)
    assert digest == read.digest
    assert samples == list(zip(shards.images, shards.captions, strict=True))


def test_the_index_points_at_the_bytes_that_tarfile_finds(shards) -> None:
    for index_file in sorted(shards.folder.glob("*.parquet")):
        rows = [row for row in pq.read_table(index_file).to_pylist() if row["status"] == "success"]
        with tarfile.open(index_file.with_suffix(".tar")) as tar:
            members = {member.name: member for member in tar}
            assert len(members) == 3 * len(rows)
            for row in rows:
                image = members[f"{row['key']}.jpg"]
                assert (image.offset_data, image.size) == (row["image_offset"], row["image_size"])


def test_webdataset_reads_the_same_samples(shards) -> None:
    urls = [str(file) for file in sorted(shards.folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [sample["jpg"] for sample in samples] == shards.images
    assert [sample["txt"].decode() for sample in samples] == [texts[0] for texts in shards.captions]
    assert [json.loads(sample["json"])["captions"] for sample in samples] == shards.captions


def test_a_shards_captions_are_those_of_its_samples(shards) -> None:
    tables = [pq.read_table(file).to_pylist() for file in sorted(shards.folder.glob("*.parquet"))]
    stored = [row["captions"] for rows in tables for row in rows if row["status"] == "success"]
    assert stored == shards.captions == [ShardSet(shards.folder).captions(i) for i in range(len(stored))]


def test_a_folder_without_a_manifest_names_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json.*vlp download"):
        ShardSet(tmp_path)


@pytest.mark.parametrize("num_shards", [0, 1])
def test_a_folder_without_a_sample_says_so(tmp_path: Path, num_shards: int) -> None:
    failure = Sample("000000000", "https://x.org/1.jpg", ["a"], StoredImage("http_404", "Not Found"))
    stats = [write_shard(tmp_path, f"{i:05d}", [failure]) for i in range(num_shards)]
    ShardsManifest.of(stats).write(tmp_path)
    with pytest.raises(ValueError, match="holds no sample"):
        ShardSet(tmp_path)


def test_more_shards_than_a_process_may_have_open_files_can_be_read(tmp_path: Path) -> None:
    """1,242 shards of CC12M meet a soft limit of 1,024."""
    stats = []
    for i in range(110):
        image = StoredImage("success", None, bytes([i]) * 10, (1, 1), (1, 1), "sha")
        stats.append(
            write_shard(tmp_path, f"{i:05d}", [Sample(f"{i:05d}0000", "https://x.org", ["a"], image)])
        )
    ShardsManifest.of(stats).write(tmp_path)
    script = f"""
import resource
from pathlib import Path
from vlp.shards.shard_set import ShardSet
shards = ShardSet(Path({str(tmp_path)!r}))
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
assert [shards.image_bytes(i % 110) for i in range(150)] == [bytes([i % 110]) * 10 for i in range(150)]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_labelled_images_are_read_with_the_column_beside_them(tmp_path: Path) -> None:
    table = pa.table({"image": [b"a", b"b"], "label": [3, 1], "captions": [["x"], ["y", "z"]]})
    pq.write_table(table, tmp_path / "images.parquet")
    for column, expected in (("label", [3, 1]), ("captions", [["x"], ["y", "z"]])):
        read = ImageTable(tmp_path / "images.parquet", column)
        assert (list(read.images()), read.labels()) == ([b"a", b"b"], expected)
        assert [read.first_images(count) for count in (1, 5)] == [[b"a"], [b"a", b"b"]]


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.parquet"):
        ImageTable(tmp_path / "nowhere.parquet", "label").check()
    pq.write_table(pa.table({"image": [b"a"]}), tmp_path / "images.parquet")
    with pytest.raises(ValueError, match=r"columns image and label; it has image$"):
        ImageTable(tmp_path / "images.parquet", "label").check()
