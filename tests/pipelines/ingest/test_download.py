"""A URL list becomes the same shards whatever interrupts it, and every URL is counted once."""

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.corpus.failures import FailureRates, failure_of
from pipelines.corpus.serve import ImageServer
from pipelines.ingest.download import download, plan
from pipelines.ingest.settings import DownloadConfig
from pipelines.tracking.journal import Journal
from tests.servers.ports import free_port
from vlp.shards.contents import ShardsManifest
from vlp.shards.shard_set import ShardSet

PORT = free_port()
RATES = FailureRates(http_404=0.2, truncated=0.1, html=0.1)


@pytest.fixture(scope="module")
def url_list(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the tiny world, then three that nobody has, and one that is not a web address."""
    folder = tmp_path_factory.mktemp("urls")
    lines = (tiny_world / "train" / "captions.jsonl").read_text().splitlines()
    rows = [
        {"url": f"http://127.0.0.1:{PORT}/{row['file']}", "caption": row["captions"]}
        for row in map(json.loads, lines)
    ]
    rows += [{"url": f"http://127.0.0.1:{PORT}/missing{i}.jpg", "caption": ["x"]} for i in range(3)]
    rows += [{"url": "file:///etc/hostname", "caption": ["x"]}]
    (folder / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "urls.jsonl"


@pytest.fixture(scope="module", autouse=True)
def _server(tiny_world: Path) -> Iterator[None]:
    with ImageServer(tiny_world / "train", port=PORT, failures=RATES):
        yield


def run(url_list: Path, output: Path, *, workers: int = 0, **settings: Any) -> ShardsManifest:
    config = DownloadConfig(
        url_list=url_list,
        number_sample_per_shard=10,
        thread_count=4,
        allowed_networks=("127.0.0.0/8",),
        **settings,
    )
    journal = Journal(output.parent / f"journal-{output.name}")
    journal.begin(name="download", tags={})
    return download(config, output, machine=MachineConfig(data_workers=workers), journal=journal)


@pytest.fixture(scope="module")
def downloaded(data_workers: int, url_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("downloaded") / "shards"
    run(url_list, output, workers=data_workers)
    return output


def digests(folder: Path) -> dict[str, str]:
    """Everything that a download makes, but its plan."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def expected_outcomes(url_list: Path) -> Counter[str]:
    """What the server does to each path, told from its own rule and not from its answers."""
    named = {None: "success", "html": "not_an_image"}
    outcomes = Counter[str]()
    for row in map(json.loads, url_list.read_text().splitlines()):
        path = row["url"].partition(f":{PORT}")[2]
        failure = failure_of(path, RATES)
        if not path:
            outcomes["invalid_url"] += 1
        elif "missing" in path:
            outcomes["http_404"] += 1
        else:
            outcomes[named.get(failure, str(failure))] += 1
    return outcomes


def test_every_url_is_counted_once_by_its_outcome(downloaded: Path, url_list: Path) -> None:
    manifest = json.loads((downloaded / "manifest.json").read_text())
    expected = expected_outcomes(url_list)
    assert len(expected) >= 4
    assert manifest["outcomes"] == expected
    assert manifest["num_urls"] == sum(expected.values()) == len(url_list.read_text().splitlines())
    status = Counter(
        status
        for file in downloaded.glob("*.parquet")
        for status in pq.read_table(file)["status"].to_pylist()
    )
    assert status == expected


def test_shards_are_readable_by_webdataset_and_by_their_index_alike(downloaded: Path, url_list: Path) -> None:
    captions = {row["url"]: row["caption"] for row in map(json.loads, url_list.read_text().splitlines())}
    tars = sorted(str(file) for file in downloaded.glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    index = ShardSet(downloaded)
    assert len(samples) == len(index) == expected_outcomes(url_list)["success"]
    for i, sample in enumerate(samples):
        record = json.loads(sample["json"])
        assert sample["__key__"] == record["key"]
        assert sample["jpg"] == index.image_bytes(i)
        assert sample["txt"].decode() == record["caption"] == captions[record["url"]][0]
        assert index.captions(i) == record["captions"] == captions[record["url"]]


def test_the_outcomes_are_handed_on_as_a_table_and_a_picture(downloaded: Path) -> None:
    manifest = json.loads((downloaded / "manifest.json").read_text())
    journal = Journal(downloaded.parent / "journal-shards")
    records = list(journal.read())
    artifacts = {journal.locate(record.fields["path"]) for record in records if record.kind == "artifact"}
    assert artifacts == {downloaded.resolve() / "outcomes.csv", downloaded.resolve() / "outcomes.png"}
    rows = list(csv.DictReader((downloaded / "outcomes.csv").open()))
    assert {row["outcome"]: int(row["urls"]) for row in rows} == manifest["outcomes"]
    assert all(row["example_1"] for row in rows if row["outcome"] != "success")
    last = [record.fields for record in records if record.kind == "metrics"][-1]
    assert last["step"] == manifest["num_urls"]
    assert last["metrics"] == {f"download/{outcome}": n for outcome, n in manifest["outcomes"].items()}


def test_what_each_filter_drops_has_an_outcome_of_its_own(tiny_world: Path, tmp_path: Path) -> None:
    """Every second caption is too short, every third too long; the images are too small for the rest."""
    names = sorted(file.name for file in (tiny_world / "train").glob("*.jpg"))[:12]
    rows = [
        {"url": f"http://127.0.0.1:{PORT}/{name}", "caption": "x" * (1 if i % 2 else 99 if i % 3 else 10)}
        for i, name in enumerate(names)
    ]
    (tmp_path / "urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lengths = {"min_caption_length": 5, "max_caption_length": 50}
    small = run(tmp_path / "urls.jsonl", tmp_path / "small", **lengths, min_image_size=1000)
    asked = [name for i, name in enumerate(names) if i % 2 == 0 and i % 3 == 0]
    fine = sum(failure_of(f"/{name}", RATES) is None for name in asked)
    assert small.outcomes["caption"] == len(names) - len(asked)
    assert small.outcomes["too_small"] == fine > 0
    stats = small.shards
    assert sum(shard.failed_to_resize or 0 for shard in stats) >= fine
    for shard in stats:
        assert shard.failed_to_download is not None
        assert shard.failed_to_resize is not None
        assert shard.successes + shard.failed_to_download + shard.failed_to_resize == shard.count


MISTAKES = {
    "image_size": 0,
    "encode_quality": 101,
    "timeout": 0,
    "retries": -1,
    "min_success_rate": 1.5,
    "near_duplicate_distance": 16,
    "max_buffer_bytes": 1000,
    "allowed_networks": ("10.0.0.0/33",),
    "user_agent_token": "a\r\nX-Header: b",
    "host_rate": float("nan"),
}


@pytest.mark.parametrize("key", MISTAKES)
def test_an_impossible_setting_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} "):
        DownloadConfig(url_list=Path("x"), **{key: MISTAKES[key]})


def test_another_folder_gets_the_same_bytes_with_and_without_ray(
    downloaded: Path, url_list: Path, tmp_path: Path
) -> None:
    run(url_list, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(downloaded)


def test_what_was_not_committed_is_made_again_and_what_was_is_not_touched(
    data_workers: int, downloaded: Path, url_list: Path
) -> None:
    """A shard whose commit file is missing, with half a tar, and the leftovers of a killed writer."""
    before = digests(downloaded)
    (downloaded / "manifest.json").unlink()
    (downloaded / "00001_stats.json").unlink()
    (downloaded / "00001.tar").write_bytes(b"half")
    (downloaded / "00001.tar.dead.tmp").write_bytes(b"half")
    committed = [*downloaded.glob("00000*"), *downloaded.glob("00002*")]
    places = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in committed}
    run(url_list, downloaded, workers=data_workers)
    assert digests(downloaded) == before
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in committed} == places


@pytest.mark.parametrize("change", [{"image_size": 16}, {"caption_col": "url"}])
def test_other_settings_are_refused_and_change_nothing(
    downloaded: Path, url_list: Path, change: dict[str, Any]
) -> None:
    before = digests(downloaded)
    with pytest.raises(UserError, match="other settings; choose another output folder"):
        run(url_list, downloaded, **change)
    assert digests(downloaded) == before


def test_a_folder_of_other_shards_is_left_alone(url_list: Path, tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(b"of somebody else")
    with pytest.raises(UserError, match="no download made; choose another output folder"):
        plan(DownloadConfig(url_list=url_list), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["00000.tar"]


def test_another_url_list_is_refused(downloaded: Path, url_list: Path, tmp_path: Path) -> None:
    shorter = tmp_path / "urls.jsonl"
    shorter.write_text("".join(url_list.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="another URL list"):
        run(shorter, downloaded)


def test_where_and_how_fast_may_change(downloaded: Path, url_list: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(url_list.read_bytes())
    before = digests(downloaded)
    run(moved, downloaded, timeout=3.0)
    assert digests(downloaded) == before


def test_a_list_without_the_columns_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text("link,caption\na,b\n")
    with pytest.raises(UserError, match="no column 'url'"):
        run(tmp_path / "urls.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


COMMAND = """
import sys
from pipelines.commands.main import main
try:
    main(sys.argv[1:])
finally:
    print("imported:", *sorted({"ray", "torch", "albumentations", "img2dataset"} & set(sys.modules)))
"""


def test_without_workers_of_ray_nothing_of_it_is_imported(url_list: Path, tmp_path: Path) -> None:
    settings = {"url_list": url_list, "allowed_networks": "[127.0.0.0/8]", "machine.data_workers": 0}
    settings["machine.storage"] = tmp_path / "results"
    arguments = [f"{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-c", COMMAND, "download", *arguments, "-o", str(tmp_path / "shards")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"
