"""The verbs of a folder mean the same on a disk, in an object store, and behind fsspec."""

import mmap
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder, FolderError
from vlp.shards.storage.local import LocalFolder


@pytest.fixture(params=["local", "s3", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        return request.getfixturevalue("object_store").bucket()
    prefix = "fsspec+file://" if request.param == "fsspec" else ""
    return open_folder(f"{prefix}{tmp_path}/shards")


def test_what_is_written_is_read_in_every_way(folder: Folder, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    with folder.writing("a") as stream:
        stream.write(content)
        stream.seek(0)
        assert stream.read(3) == content[:3]
        stream.seek(0, 2)
    folder.write("b", content)
    with folder.writing("empty"):
        pass
    folder.write("b", b"again")
    with (tmp_path / "mapped").open("w+b") as file:
        file.write(content)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            folder.write("mapped", mapped)
    assert folder.read("mapped") == content
    folder.delete("mapped")
    assert folder.names() == {"a", "b", "empty"}
    assert [folder.read(name) for name in ("a", "b", "empty")] == [content, b"again", b""]
    assert [folder.size(name) for name in ("a", "b", "empty")] == [len(content), 5, 0]
    with folder.open("a") as file:
        assert b"".join(iter(lambda: file.read(100_000), b"")) == content
        assert file.read_at(10, 250) == content[250:260]
    with folder.fetched("a") as file:
        assert file.fileno() > 0
        assert file.read() == content


def test_tables_and_json_keep_their_values(folder: Folder) -> None:
    table = pa.table({"x": [1, 2, 3], "y": ["a", "b", None]})
    with folder.writing("t.parquet") as stream:
        pq.write_table(table, stream)
    assert folder.table("t.parquet").equals(table)
    assert folder.table("t.parquet", ["y"]).equals(table.select(["y"]))
    folder.write_json("j.json", {"k": [1, "\u00f6"]})
    assert folder.read_json("j.json") == {"k": [1, "\u00f6"]}


def test_folders_in_a_folder_are_apart(folder: Folder) -> None:
    (folder / "below").write("a", b"1")
    folder.write("b", b"2")
    assert folder.names() == {"b"}
    assert (folder / "below").names() == {"a"}
    assert (folder / "below").name == "below"
    assert folder.name == "shards"
    assert folder.folders() == {"below"}
    assert (folder / "below").folders() == (folder / "nowhere").folders() == set()


def test_a_folder_is_deleted_with_what_is_in_it_and_nothing_else(folder: Folder) -> None:
    for place in (folder, folder / "below", folder / "below" / "deep", folder / "below_too"):
        place.write("a", b"1")
    for _ in range(2):  # the second time there is nothing to delete
        folder.delete_folder("below")
        assert folder.folders() == {"below_too"}
        assert (folder / "below" / "deep").names() == set()
        assert folder.names() == (folder / "below_too").names() == {"a"}


def test_what_is_not_there_is_told_apart_from_what_is_refused(folder: Folder) -> None:
    assert (folder / "nowhere").names() == set()
    folder.write("a", b"1")
    for read in (folder.read, folder.size, folder.open, folder.table):
        with pytest.raises(FileNotFoundError):
            read("b")
    folder.delete("a")
    folder.delete("a")
    assert folder.names() == set()


def test_an_exception_leaves_nothing_and_an_older_file_as_it_was(folder: Folder) -> None:
    def fail(name: str) -> None:
        with folder.writing(name) as stream:
            stream.write(b"x" * 20_000_000)
            raise KeyError

    folder.write("old", b"old")
    for name in ("old", "new"):
        with pytest.raises(KeyError):
            fail(name)
    assert folder.names() == {"old"}
    assert folder.read("old") == b"old"


def test_a_folder_is_its_address_wherever_it_is_sent(folder: Folder) -> None:
    folder.write("a", b"1")
    sent = pickle.loads(pickle.dumps(folder.absolute()))
    assert sent == open_folder(str(folder)) == folder
    assert hash(sent) == hash(folder)
    assert sent.read("a") == b"1"


def test_a_path_stays_a_path() -> None:
    assert isinstance(open_folder("shards"), LocalFolder)
    assert open_folder(Path("shards")) == open_folder("shards")
    assert open_folder("file:///data/shards") == open_folder("/data/shards")
    assert str(open_folder("shards").absolute(Path("/data"))) == "/data/shards"


UPLOADER = """
import sys
from vlp.shards.storage.address import open_folder
with open_folder(sys.argv[1]).writing("half") as stream:
    stream.write(b"x" * 300_000_000)
"""


def test_a_writer_that_is_killed_while_it_uploads_leaves_no_half_object(object_store: Any) -> None:
    folder = object_store.bucket()
    process = subprocess.Popen([sys.executable, "-c", UPLOADER, str(folder)])
    while not object_store.unfinished_uploads(folder):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert folder.names() == set()
    folder.write("half", b"whole")
    assert folder.read("half") == b"whole"


MISTAKES = {
    "s3://no-such-bucket/x": "there is no such bucket",
    "s3://x/y?endpoint_override=http://127.0.0.1:9": "the store does not answer",
}


@pytest.mark.parametrize("address", MISTAKES)
def test_what_a_store_refuses_is_one_line_with_the_remedy(
    address: str, object_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", object_store.address)
    with pytest.raises(FolderError, match=MISTAKES[address]) as raised:
        open_folder(address).names()
    assert str(raised.value).startswith(f"{address}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://host/x", "nothing reads ftp:// folders; valid: s3://"),
        ("s3:///x", "names no bucket"),
        ("s3://key:secret@bucket/x", "holds a password"),
        (7, "must be a folder, got 7"),
    ],
)
def test_an_address_that_nothing_reads_says_so(location: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_folder(location)
