"""What failed is asked for again, in shards of its own; what is stored is not touched."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.corpus.failures import FailureRates, failure_of
from pipelines.corpus.serve import ImageServer
from pipelines.ingest.download import download
from pipelines.ingest.plan import ShardPlan, read_retry
from pipelines.ingest.settings import DownloadConfig
from pipelines.tracking.journal import Journal
from tests.servers.ports import free_port
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.address import open_folder

PORT = free_port()
RATES = FailureRates(http_404=0.3, http_500=0.3)


@pytest.fixture(scope="module")
def names(tiny_world: Path) -> list[str]:
    return sorted(file.name for file in (tiny_world / "train").glob("*.jpg"))


@pytest.fixture(scope="module")
def url_list(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("urls") / "urls.jsonl"
    rows = [{"url": f"http://127.0.0.1:{PORT}/{name}", "caption": name} for name in names]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def run(url_list: Path, tiny_world: Path, tmp_path: Path) -> Any:
    """Download from a server that fails at the given rates; returns the manifest and the server's counts."""

    def run(rates: FailureRates | None = None, retry: list[str] | None = None) -> Any:
        config = DownloadConfig(
            url_list=url_list, number_sample_per_shard=10, retries=0, allowed_networks=("127.0.0.0/8",)
        )
        journal = Journal(tmp_path / "journal")
        journal.begin(name="download", tags={})
        with ImageServer(tiny_world / "train", port=PORT, failures=rates) as server:
            machine = MachineConfig(data_workers=0)
            manifest = download(config, tmp_path / "shards", machine=machine, journal=journal, retry=retry)
        return manifest, server.requests

    return run


def digests(folder: Path, pattern: str) -> dict[str, str]:
    files = [file for file in folder.glob(pattern) if file.is_file()]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_only_what_is_asked_for_is_tried_again_and_every_url_counts_once(
    run: Any, names: list[str], tmp_path: Path
) -> None:
    failures = Counter(failure_of(f"/{name}", RATES) or "success" for name in names)
    assert len(failures) == 3
    first, _ = run(RATES)
    assert first.outcomes == failures
    stored = digests(tmp_path / "shards", "0000*")

    second, requests = run(retry=["http_5xx"])
    assert requests == {"ok": failures["http_500"]}
    assert second.outcomes == {
        "success": failures["success"] + failures["http_500"],
        "http_404": failures["http_404"],
    }
    assert digests(tmp_path / "shards", "0000*").items() > stored.items()

    third, requests = run(retry=[])
    assert requests == {"ok": failures["http_404"]}
    assert third.outcomes == {"success": len(names)}
    assert third.num_urls == third.num_samples == len(names)

    shards = ShardSet(tmp_path / "shards")
    assert sorted(shards.captions(i)[0] for i in range(len(shards))) == names
    indices = [pq.read_table(file) for file in (tmp_path / "shards").glob("*.parquet")]
    stored = [row["key"] for index in indices for row in index.to_pylist() if row["status"] == "success"]
    assert len(set(stored)) == len(stored) == len(names)

    before = digests(tmp_path / "shards", "*")
    fourth, requests = run(retry=[])
    assert (fourth, requests) == (third, {})
    assert digests(tmp_path / "shards", "*") == before


def test_what_fails_once_more_counts_by_its_last_outcome(run: Any, names: list[str], tmp_path: Path) -> None:
    run(RATES)
    manifest, requests = run(FailureRates(html=1.0), retry=[])
    failed = [name for name in names if failure_of(f"/{name}", RATES)]
    assert requests == {"html": len(failed)}
    assert manifest.outcomes == {"success": len(names) - len(failed), "not_an_image": len(failed)}
    manifest, _ = run(retry=["not_an_image"])
    assert manifest.outcomes == {"success": len(names)}


def test_a_retry_that_was_cut_is_finished_and_not_begun_anew(run: Any, tmp_path: Path) -> None:
    run(RATES)
    expected, _ = run(retry=["http_404"])
    complete = digests(tmp_path / "shards", "*")
    rounds = ShardPlan.read(open_folder(tmp_path / "shards"))
    (tmp_path / "shards" / "manifest.json").unlink()
    (tmp_path / "shards" / "00003_stats.json").unlink()
    again, _ = run(retry=["http_404"])
    assert again == expected
    assert digests(tmp_path / "shards", "*") == complete
    assert ShardPlan.read(open_folder(tmp_path / "shards")) == rounds


@pytest.mark.parametrize("only", ["timeouts", "success", "duplicate", "http_200", "dns,tiemout"])
def test_a_name_that_is_no_failure_is_explained(only: str) -> None:
    with pytest.raises(UserError, match="is not an outcome to try again"):
        read_retry(only)


def test_several_outcomes_may_be_named() -> None:
    assert read_retry("timeout, dns,http_503,http_4xx") == ["timeout", "dns", "http_503", "http_4xx"]
    assert read_retry("") == []
