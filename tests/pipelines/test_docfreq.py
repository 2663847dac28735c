"""Document frequencies are those of a plain loop over all captions, and only what changed is counted."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import MachineConfig
from pipelines.config_errors import ConfigError
from pipelines.docfreq import TABLE, WORDS, DocfreqConfig, docfreq
from pipelines.journal import Journal
from vlp.data.document_frequency import DocumentFrequency
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.words import WordsConfig, count_words, read_word_counts

CAPTIONS = [
    ["a red square", "red red RED circle"],
    ["two blue circles", ""],
    *(
        [f"{i} photos of a dog", "caf\N{LATIN SMALL LETTER E WITH ACUTE} &amp; snow\N{SNOWMAN}"]
        for i in range(19)
    ),
]


@pytest.fixture(scope="module")
def counted(
    ray_cluster: None, make_shards: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Three shards, and the folder of their document frequencies."""
    folder = tmp_path_factory.mktemp("docfreq")
    shards = make_shards(folder / "shards", CAPTIONS)
    count(shards, folder / "out")
    return shards, folder / "out"


def count(shards: Path, output: Path) -> dict[str, Any]:
    journal = Journal(output.parent / "journal")
    journal.begin(name="docfreq", tags={})
    return docfreq(DocfreqConfig(shards=shards), output, machine=MachineConfig(), journal=journal)


def naive_counts(captions: list[list[str]]) -> Counter[int]:
    tokenizer = ClipBPEConfig().build()
    documents = [text for texts in captions for text in texts]
    return Counter(token for document in documents for token in set(tokenizer.token_ids([document])[0]))


def test_frequencies_equal_a_count_over_all_captions(counted: tuple[Path, Path]) -> None:
    table = DocumentFrequency.read(counted[1] / TABLE)
    assert table.num_documents == 2 * len(CAPTIONS)
    assert {i: n for i, n in enumerate(table.counts.tolist()) if n} == naive_counts(CAPTIONS)


def test_words_are_counted_beside_and_make_a_vocabulary(counted: tuple[Path, Path]) -> None:
    words = read_word_counts(counted[1] / WORDS)
    assert words == count_words(text for texts in CAPTIONS for text in texts)
    assert (words["red"], words["photos"], words["circle"]) == (4, 19, 1)
    tokenizer = WordsConfig(word_counts=counted[1] / WORDS, min_count=2).build()
    names = [
        [tokenizer.token_of(i) for i in ids] for ids in tokenizer.token_ids(["Red dogs' PHOTO, a circle"])
    ]
    assert names == [["red", "dog", "a", "circle"]]


def test_only_the_shard_whose_counts_are_missing_is_counted_again(counted: tuple[Path, Path]) -> None:
    shards, output = counted
    table = (output / TABLE).read_bytes()
    parts = sorted(output.glob("*.npz"))
    assert len(parts) == 3
    before = {part: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    (output / "00001.npz.dead.tmp").write_bytes(b"of a killed actor")
    count(shards, output)
    changed = [part for part in parts if part.stat().st_mtime_ns != before[part]]
    assert changed == [parts[1]]
    assert (output / TABLE).read_bytes() == table
    assert not list(output.glob("*.tmp"))


def test_shards_that_are_added_cost_only_themselves(
    counted: tuple[Path, Path], make_shards: Any, tmp_path: Path
) -> None:
    more = [*CAPTIONS[:20], ["an added shard"]]  # the first two shards stay as they are
    shards = make_shards(tmp_path / "shards", more)
    shutil.copytree(counted[1], tmp_path / "out")
    kept = {part.name: part.stat().st_mtime_ns for part in (tmp_path / "out").glob("*.npz")}
    count(shards, tmp_path / "out")
    added = {part.name for part in (tmp_path / "out").glob("*.npz")} - set(kept)
    assert len(added) == 1
    table = DocumentFrequency.read(tmp_path / "out" / TABLE)
    assert {i: n for i, n in enumerate(table.counts.tolist()) if n} == naive_counts(more)


def test_a_folder_without_shards_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder of shards"):
        count(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
