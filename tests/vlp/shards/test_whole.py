"""A file or folder is what it was, or what it was to become; whatever ends its writer."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.disk import full_disk
from vlp.shards.storage.whole import delete_unfinished, unfinished, writing, writing_folder

Write = Callable[[Path, bytes], None]


def write_file(place: Path, content: bytes) -> None:
    with writing(place) as stream:
        stream.write(content)


def write_two_files(place: Path, content: bytes) -> None:
    with writing_folder(place) as folder:
        (folder / "below").mkdir()
        for file in (folder / "a", folder / "below" / "b"):
            file.write_bytes(content)


def contents(place: Path) -> dict[str, bytes]:
    """Every file of a place by its path in it."""
    files = [file for file in (place, *place.rglob("*")) if file.is_file()]
    return {str(file.relative_to(place)): file.read_bytes() for file in files}


WRITERS: dict[str, tuple[Write, Callable[[Path], AbstractContextManager[Any]]]] = {
    "file": (write_file, writing),
    "folder": (write_two_files, writing_folder),
}


@pytest.fixture(params=WRITERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_what_is_written_replaces_what_was_there_and_nothing_else_stays(kind: str, tmp_path: Path) -> None:
    write, _ = WRITERS[kind]
    for content in (b"former", b"new"):
        write(tmp_path / "place", content)
        assert set(contents(tmp_path / "place").values()) == {content}
        assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_it_is_not_there_before_it_is_whole(kind: str, tmp_path: Path) -> None:
    _, open_place = WRITERS[kind]
    with open_place(tmp_path / "place"):
        assert not (tmp_path / "place").exists()
    assert (tmp_path / "place").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(
    kind: str, error: type[BaseException], tmp_path: Path
) -> None:
    write, open_place = WRITERS[kind]
    write(tmp_path / "place", b"former")
    before = contents(tmp_path)
    with pytest.raises(error), open_place(tmp_path / "place"):
        raise error
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_what_was_there_and_gives_its_room_back(kind: str, tmp_path: Path) -> None:
    write, _ = WRITERS[kind]
    write(tmp_path / "place", b"former")
    before = contents(tmp_path)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write(tmp_path / "place", bytes(1 << 24))
    assert contents(tmp_path) == before


HANG = """
import signal, sys
from pathlib import Path
from vlp.shards.storage import whole
with getattr(whole, sys.argv[1])(Path(sys.argv[2])) as written:
    print("writing", flush=True)
    signal.pause()
"""


def test_a_killed_writer_leaves_what_was_there_and_the_next_one_takes_its_place(
    kind: str, tmp_path: Path
) -> None:
    write, open_place = WRITERS[kind]
    place = tmp_path / "place"
    write(place, b"former")
    command = [sys.executable, "-c", HANG, open_place.__name__, str(place)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert set(contents(place).values()) == {b"former"}
    assert len(list(tmp_path.iterdir())) == 2
    write(place, b"new")
    assert set(contents(place).values()) == {b"new"}
    delete_unfinished(tmp_path, "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    """And the one that ends last is the one that stays."""
    with writing(tmp_path / "file") as first:
        with writing(tmp_path / "file") as second:
            second.write(b"second")
            first.write(b"first")
        assert (tmp_path / "file").read_bytes() == b"second"
    assert (tmp_path / "file").read_bytes() == b"first"


def test_who_writes_a_folder_together_finds_it(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "folder") as folder:
        assert folder == unfinished(tmp_path / "folder")
        (unfinished(tmp_path / "folder") / "part").touch()
    assert contents(tmp_path / "folder") == {"part": b""}


def test_only_leftovers_of_the_named_files_are_deleted(tmp_path: Path) -> None:
    kept = ["a.json", "notes.tmp", "a.json.tmp", "b.json.0123abcd.tmp", "a.json.0123ABCD.tmp"]
    for name in (*kept, "a.json.0123abcd.tmp"):
        (tmp_path / name).touch()
    delete_unfinished(tmp_path, "a.json")
    assert {file.name for file in tmp_path.iterdir()} == set(kept)
