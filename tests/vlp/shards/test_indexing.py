"""Shards of others are read where they lie, and ours by the readers of others."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import open_clip_train.data as open_clip_data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from pipelines.config.identity import fingerprint
from pipelines.shards.verify import verify
from vlp.data.transforms import decode
from vlp.shards.img2dataset import outcome_of
from vlp.shards.indexing import index_shards
from vlp.shards.shard_set import ShardSet
from vlp.shards.tar_samples import Endings


@pytest.fixture
def tars(shards, tmp_path: Path) -> Path:
    """The tars of the fixture alone."""
    for tar in shards.folder.glob("*.tar"):
        shutil.copy(tar, tmp_path)
    return tmp_path


def samples(folder: Path) -> list[tuple[bytes, list[str]]]:
    read = ShardSet(folder)
    return [(read.image_bytes(i), read.captions(i)) for i in range(len(read))]


def test_the_tars_alone_give_back_every_sample(tars: Path, shards) -> None:
    manifest = index_shards(tars)
    assert samples(tars) == list(zip(shards.images, shards.captions, strict=True))
    assert manifest.num_samples == 16
    checksums = json.loads((shards.folder / "manifest.json").read_text())["shards"]
    assert manifest.digest == fingerprint([stats["tar_sha256"] for stats in checksums])
    assert pq.read_table(tars / "00000.parquet")["captions"].to_pylist() == shards.captions[:6]


def test_what_is_indexed_is_not_read_again(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = index_shards(tars)
    assert index_shards(tars) == first  # a tar of the same tick of the clock is read once more
    (tars / "manifest.json").unlink()
    monkeypatch.delattr(hashlib, "file_digest")
    assert index_shards(tars) == first


def test_a_tar_that_was_replaced_by_one_of_its_size_and_time_is_read_again(tmp_path: Path) -> None:
    tar, jpeg = tmp_path / "0.tar", encode("JPEG")
    write_tar(tar, [("a.jpg", jpeg), ("a.txt", b"old")])
    index_shards(tmp_path)
    before = tar.stat()
    write_tar(tar, [("a.jpg", jpeg), ("a.txt", b"new")])
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tar.stat().st_size == before.st_size
    manifest = index_shards(tmp_path)
    assert samples(tmp_path) == [(jpeg, ["new"])]
    assert index_shards(tmp_path) == manifest


def test_what_was_copied_without_its_times_is_as_it_was(tars: Path, tmp_path: Path) -> None:
    manifest = index_shards(tars)
    files = {file.name: file.read_bytes() for file in tars.iterdir()}
    for tar in tars.glob("*.tar"):  # copied last
        tar.write_bytes(files[tar.name])
    assert index_shards(tars) == manifest
    assert {file.name: file.read_bytes() for file in tars.iterdir()} == files


def encode(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(stream, kind)
    return stream.getvalue()


def test_webdatasets_own_shards_are_read(tmp_path: Path) -> None:
    """Keys in folders, other image formats, captions before and after the image, and none at all."""
    jpeg, png, webp = (encode(kind) for kind in ("JPEG", "PNG", "WEBP"))
    with webdataset.TarWriter(str(tmp_path / "train-0.tar")) as writer:
        writer.write({"__key__": "a/001", "txt": "a cat", "png": png})
        writer.write({"__key__": "a/002", "jpeg": jpeg, "json": {"caption": "größer", "url": "http://x/1"}})
        writer.write({"__key__": "b/001", "webp": webp, "cls": b"7", "txt": "a dog"})
        writer.write({"__key__": "b/002", "jpg": jpeg})
        writer.write({"__key__": "b/003", "txt": "no image"})
        writer.write({"__key__": "b/004", "jpg": b"no image", "txt": "a bird"})
    manifest = index_shards(tmp_path)
    assert samples(tmp_path) == [(png, ["a cat"]), (jpeg, ["größer"]), (webp, ["a dog"]), (jpeg, [])]
    assert manifest.outcomes == {"no_image": 1, "not_an_image": 1, "success": 4}
    assert (manifest.num_without_captions, len(ShardSet(tmp_path, captioned=True))) == (1, 3)
    rows = pq.read_table(tmp_path / "train-0.parquet").to_pylist()
    assert all((row["width"], row["height"], len(row["sha256"])) == (30, 20, 64) for row in rows[:3])
    assert rows[1]["url"] == "http://x/1"
    assert len({row["url"] for row in rows}) == 6


def test_the_columns_of_img2datasets_index_are_kept(tars: Path, shards) -> None:
    """img2dataset writes a row for every URL, without the place of the image."""
    for tar in shards.folder.glob("*.tar"):
        table = pq.read_table(tar.with_suffix(".parquet"))
        theirs = table.select(["key", "url", "caption", "status", "width", "height", "sha256"])
        known = theirs["status"].to_pylist()
        status = pa.array([text if text == "success" else "failed_to_download" for text in known])
        pq.write_table(theirs.set_column(3, "status", status), tars / f"{tar.stem}.parquet")
    before = {file.name: pq.read_table(file) for file in tars.glob("*.parquet")}
    manifest = index_shards(tars)
    assert samples(tars) == list(zip(shards.images, shards.captions, strict=True))
    assert manifest.outcomes == {"failed_to_download": 7, "success": 16}
    for name, table in before.items():
        assert pq.read_table(tars / name).select(table.column_names).equals(table)


def test_an_index_that_was_damaged_is_named(tars: Path) -> None:
    index_shards(tars)
    (tars / "00003.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"00003\.parquet is not a Parquet file; move it elsewhere"):
        index_shards(tars)
    (tars / "00003.parquet").unlink()
    assert index_shards(tars).num_samples == 16


def test_a_parquet_file_about_other_samples_is_not_touched(tars: Path) -> None:
    pq.write_table(pa.table({"key": ["other"]}), tars / "00000.parquet")
    with pytest.raises(ValueError, match=r"00000\.parquet lacks samples"):
        index_shards(tars)
    assert pq.read_table(tars / "00000.parquet").column_names == ["key"]


def test_a_folder_without_tars_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no tar"):
        index_shards(tmp_path)


@pytest.mark.parametrize("length", [0, 100, 5000, 20_000])
def test_a_tar_that_breaks_off_is_indexed_up_to_there(tars: Path, shards, length: int) -> None:
    file = tars / "00000.tar"
    file.write_bytes(file.read_bytes()[:length])
    manifest = index_shards(tars)
    assert [stats.name for stats in manifest.shards if stats.problem] == ["00000"]
    whole = list(zip(shards.images, shards.captions, strict=True))
    assert [sample for sample in samples(tars) if sample in whole] == samples(tars)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_tar_is_indexed_as_far_as_it_makes_sense(tars: Path, shards, seed: int) -> None:
    file, rng = tars / "00003.tar", np.random.default_rng(seed)
    content = np.frombuffer(file.read_bytes(), dtype=np.uint8).copy()
    content[rng.integers(len(content), size=len(content) // 20)] = rng.integers(256)
    file.write_bytes(content.tobytes())
    manifest = index_shards(tars)
    found = samples(tars)
    assert len(found) == manifest.num_samples
    others = sum(stats.successes for stats in manifest.shards if stats.name != "00003")
    assert found[:others] == list(zip(shards.images, shards.captions, strict=True))[:others]


def test_open_clips_reader_reads_our_shards(shards) -> None:
    """Its grouping and filters, on webdataset's tar reader."""
    urls = [str(file) for file in sorted(shards.folder.glob("*.tar"))]
    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList(urls),
        webdataset.tarfile_to_samples(handler=open_clip_data.log_and_continue),
        webdataset.select(open_clip_data.filter_no_caption_or_no_image),
        webdataset.decode("pilrgb", handler=open_clip_data.log_and_continue),
        webdataset.rename(image="jpg;png;jpeg;webp", text="txt"),
        webdataset.to_tuple("image", "text"),
    )
    read = list(pipeline)
    assert [text for _, text in read] == [texts[0] for texts in shards.captions]
    assert all(image.mode == "RGB" for image, _ in read)


def write_tar(file: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_a_key_that_occurs_again_makes_no_pair(tmp_path: Path) -> None:
    """Whose caption is whose cannot be known: side by side, apart, or with an ending in other letters."""
    jpeg, png = encode("JPEG"), encode("PNG")
    again = [
        ("a.jpg", jpeg),
        ("a.txt", b"first"),
        ("b.jpg", jpeg),
        ("b.txt", b"b"),
        ("a.jpg", png),
        ("a.txt", b"2"),
    ]
    write_tar(tmp_path / "0.tar", again)
    write_tar(
        tmp_path / "1.tar",
        [("a.jpg", jpeg), ("a.JPG", jpeg), ("a.txt", b"1"), ("b.txt", b"b"), ("b.jpg", png)],
    )
    write_tar(
        tmp_path / "2.tar",
        [("a.jpg", jpeg), ("a.txt", b"1"), ("a.png", png), ("b.txt", b"b"), ("b.jpg", png)],
    )
    manifest = index_shards(tmp_path)
    assert manifest.outcomes == {"repeated_key": 3, "success": 3}
    assert samples(tmp_path) == [(jpeg, ["b"]), (png, ["b"]), (png, ["b"])]
    reasons = [pq.read_table(tmp_path / f"{i}.parquet")["error_message"][0].as_py() for i in range(3)]
    assert reasons == [
        "several members are a.txt",
        "several members are a.JPG",
        "it has several images: jpg, png",
    ]


def test_captions_that_are_missing_in_a_list_are_left_out(tmp_path: Path) -> None:
    jpeg = encode("JPEG")
    lists = [["a", None, "b"], [None, "", "c"], [{"raw": "a cat"}]]
    members = [
        member
        for i, captions in enumerate(lists)
        for member in ((f"{i}.jpg", jpeg), (f"{i}.json", json.dumps({"captions": captions}).encode()))
    ]
    write_tar(tmp_path / "0.tar", members)
    index_shards(tmp_path)
    assert pq.read_table(tmp_path / "0.parquet")["captions"].to_pylist() == [["a", "b"], ["c"], []]


def test_images_of_every_format_and_endings_in_any_letters_are_read(tmp_path: Path) -> None:
    kinds = {"JPG": "JPEG", "gif": "GIF", "bmp": "BMP", "TIF": "TIFF", "tiff": "TIFF", "avif": "AVIF"}
    images = {ending: encode(kind) for ending, kind in kinds.items()}
    members = [[(f"{e}.{e}", image), (f"{e}.TXT", f"a {e}".encode())] for e, image in images.items()]
    write_tar(tmp_path / "0.tar", [member for both in members for member in both])
    index_shards(tmp_path)
    assert samples(tmp_path) == [(image, [f"a {ending}"]) for ending, image in images.items()]


def test_members_with_dots_are_named_and_read_where_their_endings_are_set(tmp_path: Path) -> None:
    before, after, other = encode("JPEG"), encode("PNG"), encode("WEBP")
    members = [("x.input.jpg", before), ("x.output.png", after), ("x.prompt.txt", b"red"), ("x.txt", b"no")]
    write_tar(tmp_path / "0.tar", [*members, ("img.v2.webp", other), ("img.v2.txt", b"of v2")])
    assert index_shards(tmp_path).outcomes == {"no_image": 2}
    reasons = pq.read_table(tmp_path / "0.parquet")["error_message"].to_pylist()
    assert "of its endings input.jpg, output.png, prompt.txt, txt none is that of an image" in reasons[0]
    assert "v2.txt, v2.webp" in reasons[1]
    assert all("image_endings names others" in reason for reason in reasons)
    endings = Endings(image=("output.png", "v2.webp"), caption=("prompt.txt", "v2.txt"))
    manifest = index_shards(tmp_path, endings)
    assert samples(tmp_path) == [(after, ["red"]), (other, ["of v2"])]
    assert list(verify(tmp_path)) == []
    assert index_shards(tmp_path, endings) == manifest


def test_members_may_be_named_after_a_tar_with_a_parquet_file_was_indexed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["x"], "score": [0.5]}), tmp_path / "0.parquet")
    write_tar(tmp_path / "0.tar", [("x.a.jpg", encode("JPEG")), ("x.a.txt", b"of a"), ("x.txt", b"of x")])
    assert index_shards(tmp_path).outcomes == {"no_image": 1}
    index_shards(tmp_path, Endings(image=("a.jpg",), caption=("a.txt",)))
    assert samples(tmp_path) == [(encode("JPEG"), ["of a"])]
    (row,) = pq.read_table(tmp_path / "0.parquet").to_pylist()
    assert (row["score"], row["caption"], row["error_message"]) == (0.5, "of a", None)


def test_values_of_json_members_are_columns(tmp_path: Path) -> None:
    jpeg = encode("JPEG")
    contents = [
        {"caption": "a", "similarity": 1, "tags": ["x"], "mixed": 1, "width": 999},
        {"caption": "b", "similarity": 0.5, "mixed": "one", "flag": True},
    ]
    files = [[(f"{i}.jpg", jpeg), (f"{i}.json", json.dumps(c).encode())] for i, c in enumerate(contents)]
    write_tar(tmp_path / "0.tar", [*(member for both in files for member in both), ("c.jpg", jpeg)])
    index_shards(tmp_path)
    table = pq.read_table(tmp_path / "0.parquet")
    assert table["similarity"].to_pylist() == [1.0, 0.5, None]
    assert table["tags"].to_pylist() == ['["x"]', None, None]
    assert table["mixed"].to_pylist() == ["1", "one", None]
    assert table["flag"].to_pylist() == [None, True, None]
    assert table["width"].to_pylist() == [30, 30, 30]


@pytest.mark.parametrize(
    ("status", "message", "outcome"),
    [
        ("failed_to_download", "HTTP Error 404: Not Found", "http_404"),
        ("failed_to_download", "<urlopen error [Errno -2] Name or service not known>", "dns"),
        ("failed_to_download", "<urlopen error [Errno -3] Temporary failure in name resolution>", "dns"),
        ("failed_to_download", "<urlopen error timed out>", "timeout"),
        ("failed_to_download", "The read operation timed out", "timeout"),
        ("failed_to_download", "<urlopen error [Errno 111] Connection refused>", "connect"),
        ("failed_to_download", "Remote end closed connection without response", "connect"),
        ("failed_to_download", "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] ...>", "tls"),
        ("failed_to_download", "Use of image disallowed by X-Robots-Tag directive", "opt_out"),
        ("failed_to_download", "hash mismatch", "hash_mismatch"),
        ("failed_to_download", "IncompleteRead(10 bytes read, 20 more expected)", "truncated"),
        ("failed_to_download", "unknown url type: 'x'", "invalid_url"),
        ("failed_to_resize", "Image decoding error", "decode"),
        ("failed_to_resize", "image too small", "too_small"),
        ("failed_to_resize", "aspect ratio too large", "aspect"),
        ("failed_to_resize", "OpenCV(4.10) error: !_src.empty()", "decode"),
        ("failed_to_download", "something new", "failed_to_download"),
        ("success", None, "success"),
    ],
)
def test_what_img2dataset_says_is_one_of_our_outcomes(status: str, message: str | None, outcome: str) -> None:
    assert outcome_of(status, message) == outcome


@pytest.mark.parametrize(("column", "size"), [("caption", (30, 20)), ("width", (40, 20))])
def test_a_parquet_file_of_a_tar_that_was_replaced_makes_no_wrong_pair(
    column: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """Whether the first one was indexed or not; keys are numbers, so those of the new one are there, too."""
    rows = {"key": ["0", "1"], "url": ["u", "v"], "caption": ["old", None], "width": [30, None]}
    pq.write_table(pa.table(rows | {"status": ["success"] * 2}), tmp_path / "0.parquet")
    write_tar(tmp_path / "0.tar", [("0.jpg", encode("JPEG")), ("0.txt", b"old")])
    for is_indexed in (False, True):
        if is_indexed:
            index_shards(tmp_path)
            assert samples(tmp_path) == [(encode("JPEG"), ["old"])]
        stream = io.BytesIO()
        Image.new("RGB", size).save(stream, "JPEG")
        text = b"new" if column == "caption" else b"old"
        former = (tmp_path / "0.tar").read_bytes()
        write_tar(tmp_path / "0.tar", [("0.jpg", stream.getvalue()), ("0.txt", text)])
        with pytest.raises(ValueError, match=rf"0\.parquet is about another content .* {column} of 0 is"):
            index_shards(tmp_path)
        (tmp_path / "0.tar").write_bytes(former)


def test_a_tar_shows_which_images_have_no_known_black_and_white(tmp_path: Path) -> None:
    """Those of 16 bits have one, and are read with their highest 8."""
    deep, unknown = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((20, 30), 0x8123, np.uint16)).save(deep, "PNG")
    Image.fromarray(np.full((20, 30), 0.5, np.float32)).save(unknown, "TIFF")
    write_tar(tmp_path / "0.tar", [("a.png", deep.getvalue()), ("b.tif", unknown.getvalue())])
    assert index_shards(tmp_path).outcomes == {"not_an_image": 1, "success": 1}
    assert "mode F" in pq.read_table(tmp_path / "0.parquet")["error_message"][1].as_py()
    read = ShardSet(tmp_path)
    assert np.asarray(decode(read.image_bytes(0))).reshape(-1).tolist() == [0x81] * 20 * 30 * 3
    with pytest.raises(ValueError, match="mode F"):
        decode(unknown.getvalue())
