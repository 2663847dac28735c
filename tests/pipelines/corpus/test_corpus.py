"""Every image that a corpus lists is served under its URL; runs are measured on its sets by default."""

import json
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

from pipelines.config.errors import ConfigError
from pipelines.corpus.corpus import (
    URL_LIST,
    Corpus,
    ServeConfig,
    check_corpus,
    make_corpus,
    serve_corpus,
    with_sets,
)
from pipelines.corpus.parquet import ParquetCorpusConfig
from tests.servers.ports import free_port
from vlp.evaluation.config import EvaluationConfig
from vlp.evaluation.knn import KNN
from vlp.shards.storage.local import LocalFolder
from vlp.tiny_world import TinyWorldConfig


@pytest.fixture(params=["tiny_world", "parquet"])
def corpus(request: pytest.FixtureRequest, tiny_world: Path, tmp_path: Path) -> Corpus:
    if request.param == "tiny_world":
        return TinyWorldConfig(num_train=3, num_heldout=2, image_size=32)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.parquet").write_bytes((tiny_world / "retrieval.parquet").read_bytes())
    return ParquetCorpusConfig(path=tmp_path)


def test_the_url_list_names_what_is_served(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    serve = ServeConfig(port=free_port())
    manifest = make_corpus(corpus, serve, folder)
    rows = [json.loads(line) for line in (folder / URL_LIST).read_text().splitlines()]
    assert len(rows) == manifest.num_urls == corpus.num_train
    images = corpus.images(folder)
    expected = (
        [file.read_bytes() for file in sorted(images.glob("*.jpg"))]
        if images.is_dir()
        else pq.read_table(images)["image"].to_pylist()
    )
    with serve_corpus(corpus, serve, folder):
        assert [urlopen(row["url"]).read() for row in rows] == expected
    assert all(row["caption"] and isinstance(row["caption"], list) for row in rows)
    (folder / "again").mkdir()
    assert make_corpus(corpus, serve, folder / "again").digest == manifest.digest


def test_its_sets_are_measured_on_unless_others_are_given(corpus: Corpus, tmp_path: Path) -> None:
    corpus.write(tmp_path)
    settings = EvaluationConfig(protocols={"knn": KNN(k=3)}, every_steps=7)
    found = with_sets(settings, corpus, tmp_path)
    assert found.sets
    for data in found.sets:
        data.check()
    assert (found.protocols, found.every_steps) == (settings.protocols, 7)
    given = EvaluationConfig(retrieval={"mine": LocalFolder(tmp_path / "mine.parquet")})
    assert with_sets(given, corpus, tmp_path) == given


def test_a_missing_file_is_named_before_any_work(tiny_world: Path, tmp_path: Path) -> None:
    corpus = ParquetCorpusConfig(path=tmp_path)
    with pytest.raises(ConfigError, match=r"^corpus\.path: no such file: .*train\.parquet$"):
        check_corpus(corpus)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.parquet").write_bytes((tiny_world / "classification/test.parquet").read_bytes())
    with pytest.raises(ConfigError, match=r"^corpus\.path: .* lacks the columns image and captions"):
        check_corpus(corpus)


def test_only_an_address_that_others_reach_is_for_a_whole_cluster() -> None:
    assert [ServeConfig(host=host).is_for_all for host in ("127.0.0.1", "::1", "10.0.0.2")] == [
        False,
        False,
        True,
    ]
    with pytest.raises(ValueError, match=r"host must be an address such as 10\.0\.0\.2, got head"):
        ServeConfig(host="head")
