"""What is shown of a download adds up, and a download that fails is stopped, soon but not too soon."""

import csv
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from pipelines.ingest.monitor import Board, Monitor, top_reasons
from pipelines.ingest.summary import write_summary
from pipelines.tracking.journal import Journal
from vlp.shards.contents import ShardStats


def feed(board: Board, outcomes: list[str], *, every: int = 7) -> int | None:
    """Report one shard's outcomes, a few at a time; after how many the board says stop."""
    for count in range(every, len(outcomes) + 1, every):
        if not board.report("00000", Counter(outcomes[:count])):
            return count
    return None


def test_shards_that_report_again_and_again_are_counted_once() -> None:
    board = Board(floor=0.0, window=10)
    rng = random.Random(0)
    shards = {str(i): rng.choices(["success", "timeout", "dns"], k=40) for i in range(3)}
    for count in range(0, 41, 5):
        for name, outcomes in shards.items():
            assert board.report(name, Counter(outcomes[:count]))
    assert board.outcomes() == sum(map(Counter, shards.values()), Counter())


def test_few_failures_among_the_first_urls_do_not_stop_a_download() -> None:
    assert feed(Board(floor=0.5, window=100), ["dns"] * 90) is None
    assert feed(Board(floor=0.5, window=100), ["dns"] * 40 + ["success"] * 200) is None
    assert feed(Board(floor=0.0, window=100), ["dns"] * 1000) is None


def test_a_download_that_fails_late_is_stopped_within_a_window() -> None:
    board = Board(floor=0.2, window=100)
    stopped = feed(board, ["success"] * 5000 + ["timeout"] * 5000)
    assert stopped is not None
    assert 5080 <= stopped <= 5080 + 2 * 7
    assert "min_success_rate=0.2" in board.problem()
    assert "timeout" in board.problem()
    assert "\n" not in board.problem()


def test_progress_is_printed_and_journaled_with_rates_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path)
    now = Counter(success=60, timeout=30, dns=10)
    before = Counter(success=100)
    with Monitor(lambda: now, before=before, num_requests=130, total=300, journal=journal):
        pass
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("[download] 200/300 URLs, ")
    assert last.endswith("images/s, 80.0% succeeded; timeout 30, dns 10")
    (record,) = journal.read()
    assert record.fields["step"] == 230
    metrics = record.fields["metrics"]
    assert metrics["download/success"] == 160
    assert metrics["download/success_rate"] == 0.8
    assert metrics["download/images_per_second"] > 0
    assert sum(metrics[f"download/{outcome}"] for outcome in now) == 200


def test_what_was_counted_once_is_not_taken_back_when_a_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ingest.monitor.SHOW_SECONDS", 0.01)
    counts = [10, 20, 5, 15, 20, 30]
    read = Event()

    def outcomes() -> Counter[str]:
        if len(counts) == 1:
            read.set()
        return Counter(success=counts.pop(0) if len(counts) > 1 else counts[0])

    journal = Journal(tmp_path)
    with Monitor(outcomes, before=Counter(), num_requests=0, total=30, journal=journal):
        assert read.wait(10)
    steps = [record.fields["step"] for record in journal.read()]
    assert steps == sorted(steps)
    assert set(steps) == {10, 20, 30}


def test_the_three_most_frequent_reasons_are_named() -> None:
    outcomes = Counter(success=9, dns=1000, timeout=20, http_404=300, tls=1)
    assert top_reasons(outcomes) == "dns 1,000, http_404 300, timeout 20"
    assert top_reasons(Counter(success=1)) == ""


def test_the_table_holds_every_outcome_with_its_share_meaning_and_examples(tmp_path: Path) -> None:
    examples = [{"url": f"http://a/{i}", "error": f"HTTP 404: {i}"} for i in range(2)]
    empty = ShardStats(name="", count=0, successes=0, status_dict={}, tar_sha256="", tar_bytes=0)
    found = [{"http_404": examples}, {"http_404": examples, "dns": []}]
    shards = [replace(empty, examples=of_shard) for of_shard in found]
    table, picture = write_summary(tmp_path, Counter(success=3, http_404=4, dns=1), shards)
    rows = list(csv.DictReader(table.open()))
    assert [row["outcome"] for row in rows] == ["success", "http_404", "dns"]
    assert [row["share"] for row in rows] == ["37.5000%", "50.0000%", "12.5000%"]
    assert [rows[1][f"example_{i}"] for i in (1, 2, 3)] == ["http://a/0", "http://a/1", "http://a/0"]
    assert rows[1]["error"] == "HTTP 404: 0"
    assert all(row["meaning"] for row in rows)
    before = picture.read_bytes()
    write_summary(tmp_path, Counter(dns=1, http_404=4, success=3), shards)
    assert picture.read_bytes() == before
    assert Image.open(picture).size[0] == 800
