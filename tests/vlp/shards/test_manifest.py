"""What a folder says of itself is read as it was written, or named in one line."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from vlp.shards.contents import ShardsManifest, ShardStats, count_outcomes, read_all_stats
from vlp.shards.manifest import Manifest
from vlp.shards.storage.local import LocalFolder


@dataclass(frozen=True, kw_only=True)
class Pages(Manifest):
    num_pages: int


def stats(name: str, **changes: Any) -> ShardStats:
    known = {"count": 3, "successes": 2, "status_dict": {"http_404": 1, "success": 2}}
    return ShardStats(**{"name": name, **known, "tar_sha256": f"{name}abc", "tar_bytes": 10} | changes)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = Pages(digest="d", num_pages=3)
    for name in ("manifest.json", "done.json"):
        manifest.write(tmp_path, name)
        assert json.loads((tmp_path / name).read_text()) == {"digest": "d", "num_pages": 3}
        assert Pages.read(tmp_path, name) == manifest
    with pytest.raises(FileNotFoundError):
        Pages.read(tmp_path, "other.json")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "{}", '{"digest": "d"}', '{"digest": "d", "pages": 3}']
)
def test_a_broken_manifest_is_one_line_that_names_the_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json is broken; delete it and run") as failure:
        Pages.read(tmp_path)
    assert "\n" not in str(failure.value)


def test_the_counts_of_shards_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    written = [
        stats("00000"),
        stats("00001", retried={"http_404": 1}, examples={"http_404": [{"url": "u", "error": "e"}]}),
        stats("00002", problem="no member at byte 7", failed_to_download=1, failed_to_resize=0),
    ]
    for one in written:
        one.write(folder)
    assert read_all_stats(folder, ["00000", "00001", "00002"]) == written
    manifest = ShardsManifest.of(written, identity="i", described={"subset_of": "x"})
    manifest.write(folder)
    assert ShardsManifest.read(folder) == manifest
    assert manifest.shards == (written[0], replace(written[1], examples=None), written[2])


def test_what_another_writer_says_of_a_shard_is_kept(tmp_path: Path) -> None:
    """img2dataset's counts, with what `vlp data index` adds."""
    theirs = {
        "count": 3,
        "successes": 2,
        "failed_to_download": 1,
        "failed_to_resize": 0,
        "duration": 1.5,
        "start_time": 7.0,
        "end_time": 8.5,
        "status_dict": {"success": 2, "HTTP Error 404": 1},
    }
    ours = {"name": "00000", "tar_sha256": "abc", "tar_bytes": 10}
    ShardStats.from_json(theirs | ours).write(LocalFolder(tmp_path))
    saved = json.loads((tmp_path / "00000_stats.json").read_text())
    assert saved.items() >= (theirs | ours).items()
    assert ShardStats.read(LocalFolder(tmp_path), "00000").to_json() == saved


@pytest.mark.parametrize("missing", ["name", "count", "successes", "status_dict", "tar_sha256", "tar_bytes"])
def test_counts_that_are_not_complete_are_named(missing: str, tmp_path: Path) -> None:
    content = {key: value for key, value in stats("00000").to_json().items() if key != missing}
    (tmp_path / "00000_stats.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"00000_stats\.json is broken"):
        ShardStats.read(LocalFolder(tmp_path), "00000")


def test_a_url_that_was_tried_again_counts_once_by_its_last_outcome() -> None:
    first = stats("00000", count=4, successes=1, status_dict={"dns": 1, "success": 1, "timeout": 2})
    again = stats(
        "00001",
        count=3,
        successes=2,
        status_dict={"success": 2, "timeout": 1},
        retried={"dns": 1, "timeout": 2},
    )
    manifest = ShardsManifest.of([first, again])
    assert manifest.outcomes == count_outcomes([first, again]) == Counter(success=3, timeout=1)
    assert (manifest.num_urls, manifest.num_samples) == (4, 3)
