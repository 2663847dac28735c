"""How a selection is made: by workers, a file per shard, each once; then its summary, and its manifest.

What is there is not made again, so an interrupted stage goes on with what is missing.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from pipelines.compute.workers import open_workers
from pipelines.config.errors import UserError
from pipelines.config.identity import fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.shards.reshard import SourceFolder
from pipelines.tracking.journal import Journal
from pipelines.tracking.terminal import Progress
from vlp.core.markdown import markdown_table
from vlp.shards.contents import ShardsManifest
from vlp.shards.manifest import MANIFEST
from vlp.shards.published import COPIED_AT_ONCE, put, take
from vlp.shards.selection import SelectionManifest, selection_file
from vlp.shards.storage.folder import Folder

TABLE = "summary.md"


@dataclass(frozen=True)
class Making:
    """A selection that is made.

    Args:
        stage: its name, said of its progress and in its record.
        made: identity of all that decides its content, but for the shards.
    """

    stage: str
    shards: Folder
    manifest: ShardsManifest
    made: str
    output: Folder
    machine: MachineConfig
    journal: Journal

    @property
    def place(self) -> Folder:
        """Where workers write, on whatever node they are."""
        here = self.output.local_path
        return self.machine.in_storage(here) if here else self.output

    @property
    def files(self) -> list[str]:
        """The files of all shards, in their order."""
        return [selection_file(stats, self.made) for stats in self.manifest.shards]

    def fill(self, worker: type, arguments: tuple[Any, ...], *, num_gpus: int = 0) -> None:
        """Have workers, built with the shards, the place and the arguments, write the files that are missing.

        Raises:
            UserError: a worker says in its row's `refused` why it cannot.
        """
        self.journal.dataset(
            name=self.shards.name,
            digest=self.manifest.digest,
            source=str(self.shards.absolute()),
            context=self.stage,
            profile={"digest": self.manifest.digest, "num_samples": self.manifest.num_samples},
        )
        there = self.place.names()
        names = zip(self.manifest.shards, self.files, strict=True)
        rows = [{"name": stats.name, "file": file} for stats, file in names if file not in there]
        if not rows:
            return
        total, progress = len(self.files), Progress(self.stage, len(self.files), "shards")
        shared = (self.shards.absolute(), self.place.absolute(), *arguments)
        with closing(open_workers(self.machine).map(worker, shared, rows, num_gpus=num_gpus)) as made:
            for done, row in enumerate(made, start=total - len(rows) + 1):
                if row.get("refused"):
                    raise UserError(row["refused"])
                progress.update(done)
        self.place.remove_temporary()

    def bring(self, names: Sequence[str]) -> None:
        """Have files here that were written in the storage."""
        here = self.output.local_path
        if here:
            missing = [here / name for name in names if not (here / name).is_file()]
            with ThreadPool(COPIED_AT_ONCE) as pool:
                pool.map(partial(take, self.place), missing)

    def finish(
        self, table: str, pictures: dict[str, Any], *, columns: dict[str, str], counts: dict[str, float]
    ) -> SelectionManifest:
        """Write and record what is to be seen of the selection, and the manifest; returns the last."""
        folder = self.output.local_path or self.journal.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TABLE).write_text(table)
        for name, picture in pictures.items():
            picture.save(folder / name)
        for name in (TABLE, *pictures):
            if self.output.local_path is None:
                put(folder / name, self.output)
            self.journal.artifact(folder / name, folder=self.stage)
        for name in pictures:
            self.journal.image(f"view/{Path(name).stem}", folder / name)
        self.journal.metrics({f"{self.stage}/{key}": value for key, value in counts.items()})
        manifest = SelectionManifest(
            digest=fingerprint(self.made, self.manifest.digest),
            shards=self.manifest.digest,
            made=self.made,
            columns=columns,
            counts=counts,
        )
        manifest.write(self.output)
        return manifest


def open_source(folder: Folder) -> ShardsManifest:
    """What a folder of shards holds.

    Raises:
        UserError: it is not complete, or holds none.
    """
    manifest = SourceFolder.open(folder).manifest
    if not manifest.num_samples:
        raise UserError(f"{folder} holds no sample: every URL failed; its {MANIFEST} counts the reasons")
    return manifest


def share_table(before: dict[str, int], after: dict[str, int]) -> str:
    """What is kept of each of some numbers, as Markdown."""
    rows = [
        [name, f"{count:,}", f"{after[name]:,}", f"{after[name] / max(1, count):.1%}"]
        for name, count in before.items()
    ]
    return markdown_table(["", "before", "after", "kept"], rows)


def check_output(output: Folder) -> None:
    """Raise a UserError if the folder holds something else than a selection."""
    if any(name.endswith(".tar") for name in output.names()):
        raise UserError(f"{output} holds shards; choose another output folder")
