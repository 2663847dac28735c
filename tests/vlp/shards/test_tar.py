"""An archive is byte for byte the one that `tarfile` writes."""

import io
import tarfile

import numpy as np
import pytest

from vlp.shards.tar import TarWriter


@pytest.mark.parametrize(
    "sizes", [[], [0], [511, 512, 513], [8191, 9216], [8192 - 1024, 1], [200_000, 3, 70_000]]
)
def test_the_bytes_are_those_of_tarfile(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    members = {f"{10**i:09d}.{'x' * (i % 90)}": rng.bytes(size) for i, size in enumerate(sizes)}
    ours, theirs = io.BytesIO(), io.BytesIO()
    tar = TarWriter(ours)
    places = {name: tar.add(name, content) for name, content in members.items()}
    tar.close()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as oracle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            oracle.addfile(info, io.BytesIO(content))
    assert ours.getvalue() == theirs.getvalue()
    for name, start in places.items():
        assert ours.getvalue()[start : start + len(members[name])] == members[name]


@pytest.mark.parametrize(
    "name", ["k" * 141, "a/" * 70 + "b", "кот é", "кот" * 60, "\N{REPLACEMENT CHARACTER}.jpg"]
)
def test_names_of_any_length_and_letters_are_written_as_tarfile_does(name: str) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    tar = TarWriter(ours)
    places = [tar.add(f"{name}.{i}", b"content") for i in range(2)]
    tar.close()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.PAX_FORMAT) as oracle:
        for i in range(2):
            info = tarfile.TarInfo(f"{name}.{i}")
            info.size = len(b"content")
            oracle.addfile(info, io.BytesIO(b"content"))
    assert ours.getvalue() == theirs.getvalue()
    assert all(ours.getvalue()[start : start + 7] == b"content" for start in places)


@pytest.mark.parametrize(
    "name", ["../evil", "/abs/x", "a/../../x", "..", "", "..\\evil", "\\\\host\\x", "C:\\x", "a\0b", "a\nb"]
)
def test_a_name_that_leads_out_of_the_folder_is_never_written(name: str) -> None:
    stream = io.BytesIO()
    with pytest.raises(ValueError, match="not the name of a file in a folder"):
        TarWriter(stream).add(name, b"content")
    assert stream.getvalue() == b""


def test_a_name_that_fills_its_field_is_kept() -> None:
    stream = io.BytesIO()
    tar = TarWriter(stream)
    tar.add("n" * 100, b"content")
    tar.close()
    stream.seek(0)
    with tarfile.open(fileobj=stream) as members:
        assert members.getnames() == ["n" * 100]
