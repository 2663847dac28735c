"""A published folder is there whole or not at all, and is copied only where it changed."""

import os
import shutil
from pathlib import Path

import pytest

from tests.servers.object_store import ObjectStore
from vlp.shards.published import LIST, fetch, publish
from vlp.shards.storage.folder import Folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    for name, text in {"manifest.json": "{}", "a.txt": "a", "empty": "", "in/b.txt": "b"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def there(object_store: ObjectStore) -> Folder:
    return object_store.bucket()


def test_another_machine_fetches_what_was_published(made: Path, there: Folder, tmp_path: Path) -> None:
    (made / ".lock").touch()
    (made / "half.tmp").write_text("cut")
    publish(made, there)
    assert fetch(there, tmp_path / "other")
    (made / ".lock").unlink()
    (made / "half.tmp").unlink()
    assert contents(tmp_path / "other") == contents(made)


@pytest.mark.parametrize("lacks", ["list", "all"])
def test_what_was_not_published_to_its_end_is_not_there(
    lacks: str, made: Path, there: Folder, tmp_path: Path
) -> None:
    if lacks == "list":
        publish(made, there)
        there.delete(LIST)
    assert not fetch(there, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_has_not_changed_is_not_copied_again(made: Path, there: Folder, tmp_path: Path) -> None:
    publish(made, there)
    fetch(there, tmp_path / "other")
    there.write("a.txt", b"only there")
    publish(made, there)
    publish(tmp_path / "other", there)
    assert fetch(there, tmp_path / "other")
    assert (tmp_path / "other" / "a.txt").read_text() == "a"
    assert there.read("a.txt") == b"only there"


def test_a_change_of_the_same_size_is_copied(made: Path, there: Folder, tmp_path: Path) -> None:
    publish(made, there)
    fetch(there, tmp_path / "other")
    (made / "in" / "b.txt").write_text("c")
    os.utime(made / "in" / "b.txt", (1, 1))
    publish(made, there)
    fetch(there, tmp_path / "other")
    assert (tmp_path / "other" / "in" / "b.txt").read_text() == "c"


def test_a_fetch_that_was_cut_brings_the_rest(made: Path, there: Folder, tmp_path: Path) -> None:
    publish(made, there)
    fetch(there, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "in")
    (tmp_path / "other" / "manifest.json").unlink()
    fetch(there, tmp_path / "other")
    assert contents(tmp_path / "other") == contents(made)
