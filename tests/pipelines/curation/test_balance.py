"""The balance is that of a plain loop over all pairs, wherever and by whomever it is made."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipelines.commands.main import main
from pipelines.config.machine import MachineConfig
from pipelines.curation.balance import PICTURE, BalanceConfig, BalanceShard, balance
from pipelines.curation.making import TABLE
from pipelines.shards.docfreq import DocfreqConfig, docfreq
from pipelines.shards.subset import subset
from pipelines.tracking.journal import Journal
from pipelines.training.resolved import resolve
from tests.servers.object_store import ObjectStore
from vlp.core.seeds import mix_seeds
from vlp.run import RunConfig
from vlp.shards.contents import ShardsManifest
from vlp.shards.outcome import SUCCESS, StoredImage
from vlp.shards.selection import SelectionManifest
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder
from vlp.shards.writing import Sample, write_shard
from vlp.tokenizers.balancing import pass_probability
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import count_documents

T, SEED = 2, 5
ANIMALS = ["dog", "cat", "horse", "cow"]
CAPTIONS = [
    ["a red square"] * (i % 5 != 0) + [f"a red {ANIMALS[i % 4]}"] * (i % 7 == 0 or i % 5 == 0)
    for i in range(24)
]


def write(folder: Path, numbers: Sequence[int], *, size: int) -> Path:
    """Samples of some numbers in this order, in shards of a size; one URL of each shard failed."""
    folder.mkdir()
    stats = []
    for start in range(0, len(numbers), size):
        samples = [
            Sample(
                f"{start + i:09d}",
                f"http://x/{number}",
                CAPTIONS[number],
                StoredImage(SUCCESS, None, bytes([number]) * 10, (20, 30), (20, 30), f"{number:064x}"),
            )
            for i, number in enumerate(numbers[start : start + size])
        ]
        samples.append(Sample("999999999", "http://x/0", CAPTIONS[0], StoredImage("timeout")))
        stats.append(write_shard(folder, f"{start // size:05d}", samples))
    ShardsManifest.of(stats).write(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("balance") / "shards", range(24), size=10)


@pytest.fixture(scope="module")
def frequencies(shards: Path) -> Path:
    """Their document frequencies."""
    output = shards.parent / "frequencies"
    docfreq(
        DocfreqConfig(shards=LocalFolder(shards)),
        output,
        machine=MachineConfig(data_workers=0),
        journal=begun(shards.parent),
    )
    return output


def begun(folder: Path) -> Journal:
    journal = Journal(folder / "journal")
    journal.begin(name="stage", tags={})
    return journal


@pytest.fixture(scope="module")
def make(shards: Path, frequencies: Path) -> Callable[..., SelectionManifest]:
    """Balances the shards."""

    def make(output: Path | Folder, *, workers: int = 0, place: Folder | None = None) -> SelectionManifest:
        folder = LocalFolder(output) if isinstance(output, Path) else output
        config = BalanceConfig(
            shards=place or LocalFolder(shards), docfreq=LocalFolder(frequencies), t=T, seed=SEED
        )
        machine = MachineConfig(data_workers=workers)
        return balance(config, folder, machine=machine, journal=begun(shards.parent))

    return make


@pytest.fixture(scope="module")
def balanced(make: Callable[..., SelectionManifest], shards: Path) -> Path:
    make(shards.parent / "balanced")
    return shards.parent / "balanced"


def stays_by_a_loop(number: int, counts: Counter[int]) -> bool:
    """Whether a sample stays, by a dictionary and the definition."""
    tokenizer = ClipBPEConfig().build()
    for text in CAPTIONS[number]:
        digest = hashlib.sha256(f"{number:064x}\n{text}".encode()).digest()
        pair = int.from_bytes(digest[:8], "little") // 2
        for entry in tokenizer.token_ids([text])[0]:
            drawn = (mix_seeds(SEED, pair, entry) // 2**10) / 2**53
            if drawn < T / max(counts[entry], T):
                return True
    return False


def expected() -> dict[str, bool]:
    tokenizer = ClipBPEConfig().build()
    counts = Counter[int]()
    for texts in CAPTIONS:
        for text in texts:
            counts.update(set(tokenizer.token_ids([text])[0]))
    return {f"http://x/{number}": stays_by_a_loop(number, counts) for number in range(24)}


def kept_urls(shards: Path, folder: Path) -> dict[str, bool]:
    """URL -> whether the selection keeps its image."""
    manifest, found = SelectionManifest.read(folder), {}
    for stats in ShardsManifest.read(shards).shards:
        index = pq.read_table(shards / f"{stats.name}.parquet").to_pylist()
        rows = pq.read_table(folder / manifest.file(stats)).to_pylist()
        for one, row in zip(index, rows, strict=True):
            assert row["key"] == one["key"]
            assert row["kept"] == (row["passed"] > 0)
            if one["status"] == SUCCESS:
                found[one["url"]] = row["kept"]
            else:
                assert not row["kept"]
    return found


def test_what_stays_is_what_a_loop_over_all_pairs_keeps(shards: Path, balanced: Path) -> None:
    found = kept_urls(shards, balanced)
    assert found == expected()
    assert 3 < sum(found.values()) < 21


def test_neither_layout_nor_order_of_the_shards_changes_what_stays(shards: Path, tmp_path: Path) -> None:
    turned = write(tmp_path / "turned", range(23, -1, -1), size=7)
    tokenizer, found = ClipBPEConfig(), {}
    table = count_documents([text for texts in CAPTIONS for text in texts], tokenizer.build())
    place = LocalFolder(tmp_path / "out")
    worker = BalanceShard(LocalFolder(turned), place, tokenizer, pass_probability(table.counts, T), SEED)
    for stats in ShardsManifest.read(turned).shards:
        worker({"name": stats.name, "file": "0.parquet"})
        index = pq.read_table(turned / f"{stats.name}.parquet").to_pylist()
        kept = place.table("0.parquet")["kept"].to_pylist()
        rows = zip(index, kept, strict=True)
        found |= {row["url"]: is_kept for row, is_kept in rows if row["status"] == SUCCESS}
    assert found == expected()


def test_one_actor_of_ray_makes_the_files_of_several_processes(
    ray_cluster: None, make: Callable[..., SelectionManifest], balanced: Path, tmp_path: Path
) -> None:
    make(tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == contents(balanced)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_only_what_is_missing_is_made_again(
    make: Callable[..., SelectionManifest],
    shards: Path,
    frequencies: Path,
    balanced: Path,
    tmp_path: Path,
) -> None:
    """As after a kill in the middle of a shard: the others' indexes cannot even be read."""
    copy = write(tmp_path / "shards", range(24), size=10)
    for name in ("00000", "00002"):
        (copy / f"{name}.parquet").write_bytes(b"spoilt")
    output = tmp_path / "out"
    output.mkdir()
    (missing,) = [
        SelectionManifest.read(balanced).file(stats)
        for stats in ShardsManifest.read(shards).shards
        if stats.name == "00001"
    ]
    for name, content in contents(balanced).items():
        if name not in ("manifest.json", missing):
            (output / name).write_bytes(content)
    (output / f"{missing}.killed.tmp").write_bytes(b"half")
    make(output, place=LocalFolder(copy))
    assert contents(output) == contents(balanced)


def test_in_an_object_store_the_files_are_the_same(
    make: Callable[..., SelectionManifest], shards: Path, balanced: Path, object_store: ObjectStore
) -> None:
    there, remote = object_store.bucket(), object_store.bucket()
    for name, content in contents(shards).items():
        there.write(name, content)
    make(remote, place=there)
    assert {name: remote.read(name) for name in remote.names()} == contents(balanced)


def test_the_summary_counts_before_and_after(balanced: Path) -> None:
    stays = list(expected().values())
    captions = sum(len(texts) for texts, is_kept in zip(CAPTIONS, stays, strict=True) if is_kept)
    lines = (balanced / TABLE).read_text().splitlines()
    assert f"| images | 24 | {sum(stays)} | {sum(stays) / 24:.1%} |" in lines
    total = sum(map(len, CAPTIONS))
    assert f"| captions | {total} | {captions} | {captions / total:.1%} |" in lines
    assert (balanced / PICTURE).stat().st_size > 1000
    counts = json.loads((balanced / "manifest.json").read_text())["counts"]
    assert counts["share_kept"] == sum(stays) / 24
    assert counts["tail_entries_before"] + counts["head_entries_before"] == counts["entries_before"]
    assert counts["head_share_after"] < counts["head_share_before"]


def test_a_subset_and_a_run_take_the_samples_that_stay(
    shards: Path, balanced: Path, tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    stays = np.flatnonzero(list(expected().values())).tolist()
    subset(shards, [f"selection={balanced}", "kept==true"], tmp_path / "subset")
    copied = ShardSet(tmp_path / "subset")
    assert [copied.image_bytes(i)[0] for i in range(len(copied))] == stays
    data = {"shards": str(shards), "where": ["kept==true"], "selections": [str(balanced)]}
    run = resolve(tiny_run(data=data, training={"batch_size": 2}), MachineConfig(num_workers=0))
    assert [run.shards.image_bytes(i)[0] for i in range(len(run.shards))] == stays
    everything = tiny_run(data={"shards": str(shards)}, training={"batch_size": 2})
    assert run.identity != resolve(everything, MachineConfig(num_workers=0)).identity


MISTAKES: dict[str, tuple[list[str], str]] = {
    "tokenizer": (
        ["tokenizer.name=clip_bpe", "tokenizer.context_length=9"],
        "of other tokenizers, or another",
    ),
    "setting": (["tt=9"], "tt is not a setting"),
    "t": (["t=0.5"], "t must be at least 1"),
    "tables": (["--docfreq", "shards"], "shards is not a folder of frequency tables"),
}


def vlp(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["data", "balance", *map(str, arguments)])


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_made(
    kind: str, shards: Path, frequencies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, line = MISTAKES[kind]
    monkeypatch.chdir(shards.parent)
    before = sorted(shards.parent.iterdir())
    result = vlp("shards", "--docfreq", "frequencies", "-o", "out", *arguments)
    assert result.exit_code == 2
    assert line in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(shards.parent.iterdir()) == before


def test_what_has_to_be_named_is_asked_for(shards: Path, frequencies: Path, tmp_path: Path) -> None:
    assert "Missing option '--docfreq'" in vlp(shards, "-o", tmp_path / "out").stderr
    nowhere = vlp(tmp_path / "nowhere", "--docfreq", frequencies, "-o", tmp_path / "out")
    assert "nowhere is not a folder of shards" in nowhere.stderr
    over = vlp(shards, "--docfreq", frequencies, "-o", shards)
    assert "holds shards; choose another output folder" in over.stderr
