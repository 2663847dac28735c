"""Document frequencies are those of a plain loop over all captions, and only what changed is counted."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import Layers, build
from pipelines.shards.docfreq import (
    HEAD_AND_TAIL,
    PICTURE,
    SUMMARY,
    TABLE,
    WORDS,
    DocfreqConfig,
    DocfreqManifest,
    docfreq,
)
from pipelines.tracking.journal import Journal
from pipelines.workflow.plan import PipelineConfig, Plan
from tests.paths import REPOSITORY
from vlp.shards.storage.local import LocalFolder
from vlp.tokenizers.clip_bpe import ClipBPEConfig
from vlp.tokenizers.document_frequency import DocumentFrequency, count_documents
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
    count(shards, folder / "out", workers=2)
    return shards, folder / "out"


def count(shards: Path, output: Path, *, workers: int = 0, **settings: Any) -> DocfreqManifest:
    journal = Journal(output.parent / "journal")
    journal.begin(name="docfreq", tags={})
    config = DocfreqConfig(shards=LocalFolder(shards), **settings)
    return docfreq(config, output, machine=MachineConfig(data_workers=workers), journal=journal)


def spoil_indices(shards: Path) -> None:
    """Whoever reads the captions of these shards fails."""
    for file in shards.glob("*.parquet"):
        file.write_bytes(b"spoilt")


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


def test_without_ray_the_files_are_the_same(counted: tuple[Path, Path], tmp_path: Path) -> None:
    shards, output = counted
    count(shards, tmp_path / "out")
    files = {file.name for file in output.iterdir() if file.is_file()}
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (output / file).read_bytes()


def test_only_the_shard_whose_counts_are_missing_is_counted_again(counted: tuple[Path, Path]) -> None:
    shards, output = counted
    table = (output / TABLE).read_bytes()
    parts = sorted((output / "parts").glob("*.npz"))
    assert len(parts) == 3
    before = {part: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    (output / "parts" / "00001.npz.dead.tmp").write_bytes(b"of a killed actor")
    count(shards, output)
    changed = [part for part in parts if part.stat().st_mtime_ns != before[part]]
    assert changed == [parts[1]]
    assert (output / TABLE).read_bytes() == table
    assert not list((output / "parts").glob("*.tmp"))


def test_shards_that_are_added_cost_only_themselves(
    counted: tuple[Path, Path], make_shards: Any, tmp_path: Path
) -> None:
    """The first shards are not read again, and the files are those of counting all at once."""
    more = [*CAPTIONS[:20], ["an added shard"]]  # the first two shards stay as they are
    shards = make_shards(tmp_path / "shards", more)
    count(shards, tmp_path / "at_once")
    spoil_indices(shards)
    shutil.copy(make_shards(tmp_path / "again", more) / "00002.parquet", shards)
    shutil.copytree(counted[1], tmp_path / "out")
    count(shards, tmp_path / "out")
    files = {file.name for file in (tmp_path / "at_once").iterdir() if file.is_file()}
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "at_once" / file).read_bytes()
    table = DocumentFrequency.read(tmp_path / "out" / TABLE)
    assert {i: n for i, n in enumerate(table.counts.tolist()) if n} == naive_counts(more)


def test_several_tokenizers_are_counted_at_once_and_one_that_is_added_alone(
    counted: tuple[Path, Path], make_shards: Any, tmp_path: Path
) -> None:
    shards = make_shards(tmp_path / "shards", CAPTIONS)
    shutil.copytree(counted[1], tmp_path / "out")
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "parts").iterdir()}
    words = WordsConfig(word_counts=counted[1] / WORDS, min_count=1)
    more = {"short": ClipBPEConfig(context_length=4), "words": words}
    manifest = count(shards, tmp_path / "out", more_tokenizers=more)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(list((tmp_path / "out" / "parts").iterdir())) == len(kept) + 2 * 3
    for name, config in {"": ClipBPEConfig(), "-short": more["short"], "-words": words}.items():
        table = DocumentFrequency.read(tmp_path / "out" / f"document_frequency{name}.parquet")
        expected = count_documents([text for texts in CAPTIONS for text in texts], config.build())
        assert table.counts.tolist() == expected.counts.tolist()
        assert table.tokenizer == manifest.tables[f"document_frequency{name}.parquet"]
    again = count(shards, tmp_path / "at_once", more_tokenizers=more)
    assert again == manifest


def test_what_is_worth_seeing_is_recorded(counted: tuple[Path, Path]) -> None:
    journal = Journal(counted[1].parent / "journal")
    recorded = {Path(record.fields["path"]).name for record in journal.read() if record.kind == "artifact"}
    assert recorded == {TABLE, WORDS, SUMMARY, PICTURE, HEAD_AND_TAIL}
    summary = json.loads((counted[1] / SUMMARY).read_text())[TABLE]
    assert summary["num_documents"] == 2 * len(CAPTIONS)
    head = (counted[1] / HEAD_AND_TAIL).read_text().splitlines()
    (number,) = naive_counts([["of"]])
    assert "| of | 19 |" in "\n".join(head)
    assert naive_counts(CAPTIONS)[number] == 19


def test_a_run_reads_the_table_of_its_own_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    short = {"name": "clip_bpe", "context_length": 20}
    base = {"base": "conf/run/superclass.yaml", "objective": {"idf": "offline"}}
    settings = {
        "name": "p",
        "corpus": {"name": "tiny_world"},
        "docfreq": {"more_tokenizers": {"short": short}},
        "runs": [base | {"name": "long"}, base | {"name": "short", "tokenizer": short}],
    }
    plan = Plan(build(PipelineConfig, Layers().add(settings, "p.yaml")))
    plan.check()
    tables = [run.data.document_frequency for run in plan.runs(Path("shards"), Path("tables"))]
    assert tables == [Path("tables") / TABLE, Path("tables/document_frequency-short.parquet")]


def test_a_missing_vocabulary_is_one_line_before_any_work(
    make_shards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = make_shards(tmp_path / "shards", CAPTIONS[:1])
    monkeypatch.chdir(tmp_path)
    settings = ["more_tokenizers.bert.name=wordpiece", "more_tokenizers.bert.vocab_file=nowhere.txt"]
    result = CliRunner().invoke(main, ["docfreq", f"shards={shards}", *settings, "-o", "out"])
    assert result.exit_code == 2
    assert result.stderr == "vlp: more_tokenizers.bert: no such file: nowhere.txt\n"
    assert list(tmp_path.iterdir()) == [shards]


def test_names_of_tables_make_files() -> None:
    with pytest.raises(ValueError, match="name must be letters"):
        DocfreqConfig(shards=LocalFolder(Path()), more_tokenizers={"a/b": ClipBPEConfig()})


def test_a_folder_without_shards_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder of shards"):
        count(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
