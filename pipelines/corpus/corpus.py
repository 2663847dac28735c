"""Images to try a pipeline on: generated, or from Parquet files; served over HTTP as if they were the web."""

import json
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Protocol

from pipelines.config.errors import UserError, blaming
from pipelines.config.identity import fingerprint
from pipelines.corpus.parquet import ParquetCorpusConfig
from pipelines.corpus.serve import FailureRates, ImageServer
from vlp.core.config import StrictConfig, Within
from vlp.core.registry import ByName, Registry
from vlp.evaluation.config import EvaluationConfig
from vlp.shards.manifest import Manifest
from vlp.tiny_world import TinyWorldConfig

URL_LIST = "urls.jsonl"


class Corpus(Protocol):
    """Training images with captions, and sets to measure models on; what is made of it lies in a folder."""

    @property
    def num_train(self) -> int:
        """Training images, before the download, which may lose some."""
        ...

    def check(self) -> None:
        """Raise a ValueError that names the setting if something is missing of it."""

    def write(self, folder: Path) -> None:
        """Make what is not there already."""

    def images(self, folder: Path) -> Path:
        """What `ImageServer` serves: the training images."""
        ...

    def captions(self, folder: Path) -> dict[str, list[str]]:
        """Captions of every training image, by the name under which it is served."""
        ...

    def evaluation_sets(self, folder: Path) -> dict[str, Any]:
        """What models are measured on: kind of set -> name -> path, as in `EvaluationConfig`."""
        ...

    def identity(self) -> Any:
        """What decides its content."""


CORPORA = Registry()
for each in (TinyWorldConfig, ParquetCorpusConfig):
    CORPORA.register(each)

CorpusConfig = Annotated[TinyWorldConfig | ParquetCorpusConfig, ByName(CORPORA)]
"""The settings of a corpus, each of them a `Corpus`."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig(StrictConfig):
    """Where the corpus is served while it is downloaded, and what goes wrong."""

    host: str = "127.0.0.1"
    """Address of this machine that the images are served at; no other machine reaches the default, and so no
    other node of a cluster takes part in their download."""
    port: Annotated[int, Within(0, 65535)] = 8931
    """The URLs, and so the bytes of the shards, contain it: it stays the same when a pipeline goes on."""
    failures: FailureRates = FailureRates()
    """What goes wrong, how often."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            ip_address(self.host)
        except ValueError:
            raise ValueError(f"host must be an address such as 10.0.0.2, got {self.host}") from None

    @property
    def is_for_all(self) -> bool:
        """Whether other machines may reach it."""
        return not ip_address(self.host).is_loopback


@dataclass(frozen=True, kw_only=True)
class CorpusManifest(Manifest):
    """The manifest of a corpus that is ready to be served."""

    num_urls: int


def make_corpus(corpus: Corpus, serve: ServeConfig, folder: Path) -> CorpusManifest:
    """Write what is served and the URL list of it; returns a manifest.

    Raises:
        ConfigError: the files of a Parquet corpus are missing.
    """
    check_corpus(corpus)
    corpus.write(folder)
    base = f"http://{serve.host}:{serve.port}"
    rows = [
        {"url": f"{base}/{name}", "caption": captions} for name, captions in corpus.captions(folder).items()
    ]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / URL_LIST).write_text(content)
    digest = fingerprint(corpus.identity(), base, serve.failures)
    manifest = CorpusManifest(digest=digest, num_urls=len(rows))
    manifest.write(folder)
    return manifest


def check_corpus(corpus: Corpus) -> None:
    """Find missing files before any work starts.

    Raises:
        ConfigError: names the first.
    """
    with blaming("corpus."):
        corpus.check()


def serve_corpus(corpus: Corpus, serve: ServeConfig, folder: Path) -> ImageServer:
    """The server that the URL list of `make_corpus` points to."""
    try:
        return ImageServer(corpus.images(folder), host=serve.host, port=serve.port, failures=serve.failures)
    except OSError as error:
        raise UserError(error.strerror) from error


def with_sets(evaluation: EvaluationConfig, corpus: Corpus, folder: Path) -> EvaluationConfig:
    """An evaluation on the sets of a corpus, unless it has its own."""
    return evaluation if evaluation.sets else replace(evaluation, **corpus.evaluation_sets(folder))
