"""What a model gives of images and texts, in parts on a disk: each is computed once, and read from there."""

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vlp.data.image_files import Identify
from vlp.data.image_tables import Part
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder


class Block(NamedTuple):
    """Some rows of a matrix."""

    name: str
    """The file of them: other rows have another."""
    make: Callable[[], Tensor]
    """Computes them: (B, D)."""


class FeatureStore:
    """A folder of blocks, which any number of processes fill and read; what is there is not made again.

    A block exists whole or not at all. It is named by the model and by the content of what it was made of, so
    it is found again wherever a set lies, and never by another model. The folder may be deleted at any time.

    Args:
        model: what tells the model, and how it is given images.
        identify: what tells the content of a file.
    """

    def __init__(self, folder: Folder, *, model: str, identify: Identify) -> None:
        self.folder, self.model, self.identify = folder, model, identify

    @classmethod
    def temporary(cls) -> Self:
        """One of a single model, which is gone with the object."""
        folder = tempfile.mkdtemp(prefix="vlp-features-")
        store = cls(LocalFolder(Path(folder)), model="", identify=lambda folder, name: str(folder / name))
        weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
        return store

    def name_of(self, what: str | Part) -> str:
        """The file of what the model gives of some images, or of texts."""
        content = what if isinstance(what, str) else what.identity(self.identify)
        return hashlib.sha256(f"{self.model}\n{content}".encode()).hexdigest()[:40] + ".npy"

    def missing(self, parts: Iterable[Part]) -> list[Part]:
        """Those of some images of which there is nothing yet."""
        there = self.folder.names()
        return [part for part in parts if self.name_of(part) not in there]

    def fill(self, blocks: Iterable[Block]) -> None:
        """Make what is not there."""
        there = self.folder.names()
        for block in blocks:
            if block.name not in there:
                rows = block.make().numpy()  # before a file is begun: a model may be refused
                with self.folder.writing(block.name) as stream:
                    np.save(stream, rows)

    def matrix(self, blocks: Sequence[Block]) -> Tensor:
        """All rows, one block after another: (I, D), which lie on a disk and take memory while they are read.

        What is not there is made first.
        """
        self.fill(blocks)
        num_rows, rows = 0, np.empty((0, 0))
        with self.folder.scratch() as stream:
            for block in blocks:
                with self.folder.fetched(block.name) as file:
                    rows = np.load(file)
                stream.write(rows.data)
                num_rows += len(rows)
            stream.flush()
            shape = (num_rows, *rows.shape[1:])
            return torch.from_numpy(np.memmap(stream, rows.dtype, mode="r+", shape=shape))
