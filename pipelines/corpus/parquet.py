"""A corpus of images that lie in Parquet files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from pipelines.config.identity import file_sha256
from vlp.core.config import StrictConfig, naming
from vlp.data.image_tables import ImageTable


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

    @property
    def num_train(self) -> int:
        """Training images."""
        return pq.read_metadata(self.path / self.train).num_rows

    def check(self) -> None:
        """Raise a ValueError that names the file unless both files are there."""
        with naming("path: "):
            for name in (self.train, self.retrieval):
                ImageTable(self.path / name, "captions").check()

    def write(self, folder: Path) -> None:
        """Nothing: the files are there."""

    def images(self, folder: Path) -> Path:
        """The file of the training images."""
        return self.path / self.train

    def captions(self, folder: Path) -> dict[str, list[str]]:
        """Captions of every training image by the name that `ImageServer` gives it."""
        captions = ImageTable(self.images(folder), "captions").labels()
        return {f"{i:06d}.jpg": texts for i, texts in enumerate(captions)}

    def evaluation_sets(self, folder: Path) -> dict[str, dict[str, Path]]:
        """Sets that models are measured on, by their kind and name."""
        return {"retrieval": {"heldout": self.path / self.retrieval}}

    def identity(self) -> Any:
        """What decides every byte."""
        return [file_sha256(self.path / name) for name in (self.train, self.retrieval)]
