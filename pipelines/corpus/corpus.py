"""Images to try a pipeline on: generated, or from Parquet files; served over HTTP as if they were the web."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq

from pipelines.config.errors import ConfigError, UserError
from pipelines.config.identity import file_sha256, fingerprint
from pipelines.corpus.serve import FailureRates, ImageServer
from vlp.core.config import StrictConfig, Within
from vlp.core.registry import ByName, Registry
from vlp.evaluation.config import EvaluationConfig
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.local import LocalFolder
from vlp.tiny_world import TinyWorldConfig, write_corpus

URL_LIST = "urls.jsonl"


CORPORA = Registry()
CORPORA.register(TinyWorldConfig)


@CORPORA.register
@dataclass(frozen=True, kw_only=True)
class ParquetCorpusConfig(StrictConfig):
    """Images with captions that lie in Parquet files with columns `image` and `captions`."""

    name: Literal["parquet"] = "parquet"
    """Which corpus it is."""
    path: Path
    """Folder of the files."""
    train: str = "train.parquet"
    """File of the training pairs."""
    retrieval: str = "dev.parquet"
    """Held-out pairs for image-text retrieval."""


CorpusConfig = Annotated[TinyWorldConfig | ParquetCorpusConfig, ByName(CORPORA)]


@dataclass(frozen=True, kw_only=True)
class ServeConfig(StrictConfig):
    """Where the corpus is served while it is downloaded, and what goes wrong."""

    host: str = "127.0.0.1"
    """Address that the images are served at."""
    port: Annotated[int, Within(0, 65535)] = 8931
    """The URLs, and so the bytes of the shards, contain it: it stays the same when a pipeline goes on."""
    failures: FailureRates = FailureRates()
    """What goes wrong, how often."""


def make_corpus(config: CorpusConfig, serve: ServeConfig, folder: Path) -> dict[str, Any]:
    """Write what is served and the URL list of it; returns a manifest.

    Raises:
        ConfigError: the files of a Parquet corpus are missing.
    """
    base = f"http://{serve.host}:{serve.port}"
    if isinstance(config, TinyWorldConfig):
        write_corpus(config, folder)
        lines = (folder / "train" / "captions.jsonl").read_text().splitlines()
        rows = [
            {"url": f"{base}/{row['file']}", "caption": row["captions"]} for row in map(json.loads, lines)
        ]
    else:
        check_corpus(config)
        captions = pq.read_table(config.path / config.train, columns=["captions"])["captions"].to_pylist()
        rows = [{"url": f"{base}/{i:06d}.jpg", "caption": texts} for i, texts in enumerate(captions)]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / URL_LIST).write_text(content)
    manifest = {"digest": fingerprint(_content(config, folder), base, serve.failures), "num_urls": len(rows)}
    LocalFolder(folder).write_json(MANIFEST, manifest)
    return manifest


def check_corpus(config: CorpusConfig) -> None:
    """Find missing files before any work starts."""
    if isinstance(config, ParquetCorpusConfig):
        for name in (config.train, config.retrieval):
            try:
                read_schema = pq.read_schema(config.path / name)
            except FileNotFoundError as error:
                raise ConfigError(f"corpus.path: no such file: {config.path / name}") from error
            if not {"image", "captions"} <= set(read_schema.names):
                raise ConfigError(f"corpus.path: {config.path / name} lacks the columns image and captions")


def num_train(config: CorpusConfig) -> int:
    """Training samples of a corpus before the download, which may lose some."""
    if isinstance(config, TinyWorldConfig):
        return config.num_train
    return pq.read_metadata(config.path / config.train).num_rows


def serve_corpus(config: CorpusConfig, serve: ServeConfig, folder: Path) -> ImageServer:
    """The server that the URL list of `make_corpus` points to."""
    source = folder / "train" if isinstance(config, TinyWorldConfig) else config.path / config.train
    try:
        return ImageServer(source, host=serve.host, port=serve.port, failures=serve.failures)
    except OSError as error:
        raise UserError(error.strerror) from error


def corpus_evaluation(config: CorpusConfig, folder: Path) -> EvaluationConfig:
    """What a corpus is evaluated on, if nothing else is given."""
    if isinstance(config, TinyWorldConfig):
        return EvaluationConfig(
            retrieval={config.name: folder / "retrieval.parquet"},
            classification={config.name: folder / "classification"},
        )
    return EvaluationConfig(retrieval={"heldout": config.path / config.retrieval})


def _content(config: CorpusConfig, folder: Path) -> Any:
    if isinstance(config, TinyWorldConfig):
        return config
    return [file_sha256(config.path / name) for name in (config.train, config.retrieval)]
