"""Tars that img2dataset or webdataset wrote to a folder of shards, without copying them."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.compute.workers import open_workers
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from pipelines.tracking.terminal import Progress
from vlp.core.config import StrictConfig
from vlp.core.messages import one_line
from vlp.shards.contents import ShardsManifest
from vlp.shards.indexing import index_shard, index_shards, indexed_stats, list_tars
from vlp.shards.storage.address import open_folder
from vlp.shards.tar_samples import Endings


@dataclass(frozen=True, kw_only=True)
class IndexConfig(StrictConfig):
    """Which members of a sample are what: by what follows the first dot of their names, in small letters."""

    image_endings: tuple[str, ...] = Endings().image
    """Of the image; a sample has one of them, others that it has beside it are not listed here."""
    caption_endings: tuple[str, ...] = Endings().caption
    """Of files whose text is the caption; a .json with `caption` or `captions` is read, too."""

    @property
    def endings(self) -> Endings:
        """As readers of tars take them."""
        given = (self.image_endings, self.caption_endings)
        return Endings(*(tuple(ending.lstrip(".").lower() for ending in some) for some in given))


def index(folder: Path, config: IndexConfig = IndexConfig(), *, machine: MachineConfig) -> ShardsManifest:
    """Write an index beside every tar, and a manifest; returns the manifest.

    What is there already is not made again, so the same command goes on where it was.

    Raises:
        UserError: the folder holds no tars, or nothing can be written there, or a Parquet file beside a tar
            is about other samples.
    """
    try:
        tars = list_tars(folder)
        todo = [tar for tar in tars if indexed_stats(tar, config.endings) is None]
        if todo:
            _check_writable(folder)
            _index_tars(todo, config.endings, machine, num_tars=len(tars))
        return index_shards(folder, config.endings)
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from error


class IndexTar:
    """What a worker does with one tar."""

    def __init__(self, endings: Endings) -> None:
        self.endings = endings

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """The failure of what is not a fault of the tar, or nothing."""
        try:
            index_shard(Path(row["tar"]), self.endings)
        except (ValueError, OSError) as error:
            return {"failure": str(error)}
        return {"failure": ""}


def _index_tars(tars: list[Path], endings: Endings, machine: MachineConfig, *, num_tars: int) -> None:
    items = [{"tar": str(tar.absolute())} for tar in tars]
    progress = Progress("index", num_tars, "tars")
    with closing(open_workers(machine).map(IndexTar, (endings,), items)) as indexed:
        for done, row in enumerate(indexed, start=num_tars - len(tars) + 1):
            if row["failure"]:
                raise ValueError(row["failure"])
            progress.update(done)


def _check_writable(folder: Path) -> None:
    try:
        open_folder(folder).check_writable()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write there ({error.strerror}), and the index lies beside the tars; "
            "make the folder writable, or link the tars into one that is"
        ) from error
