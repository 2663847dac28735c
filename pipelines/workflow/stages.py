"""The steps of a pipeline, each in a folder named for its settings and inputs: done once, resumed if cut."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from pipelines.config.errors import blaming
from pipelines.config.identity import fingerprint
from pipelines.config.settings import flat_params
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.tracking.log import logged
from pipelines.tracking.session import Made, Work, alone
from vlp.shards.published import fetch, publish
from vlp.shards.storage.folder import Folder

DONE = "done.json"


@dataclass(frozen=True)
class Done(Generic[Made]):
    """A finished stage."""

    folder: Path
    manifest: Made
    journal: Journal

    @property
    def digest(self) -> str:
        """Identity of the stage's output; what depends on it is done again when it changes."""
        return self.manifest.digest


@dataclass(frozen=True)
class Stages:
    """Runs stages into `folder`, each tracked as a nested run of `journal`."""

    folder: Path
    journal: Journal
    there: Folder | None = None
    """Where finished stages are published, for other machines to go on from; None if `folder` is that."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Of the stages so far, by name."""

    def run(
        self,
        name: str,
        work: Work[Made],
        makes: type[Made],
        *,
        settings: Any,
        identity: Any,
        within: Journal | None = None,
    ) -> Done[Made]:
        """Do a stage unless it was done; one that was interrupted goes on in the same folder.

        Args:
            name: KIND, or KIND/NAME, of which the tracked run is called NAME.
            makes: class of its manifest.
            settings: dataclass that is tracked as the stage's parameters.
            identity: what decides the result: the settings, with digests in place of the inputs' paths.
            within: record of the run that the stage is a part of; without it, it is a run of its own.

        Raises:
            ConfigError: what the stage said of its output can no longer be read.
        """
        label = f"{name}-{fingerprint(name, identity)[:8]}"
        folder = self.folders[name] = self.folder / label
        # Beside the pipeline's: one of other settings, for which the stage is unchanged, finds its record.
        record = within or Journal(self.journal.folder.parent / label)
        there = self.there / label if self.there else None
        if there and not (folder / DONE).is_file() and fetch(there, folder):
            print(f"[{name}] took {there}", flush=True)
        if (folder / DONE).is_file():
            print(f"[{name}] unchanged: {folder}", flush=True)
            if there:
                publish(folder, there)
            with blaming():
                return Done(folder, makes.read(folder, DONE), record)
        params = None if within else flat_params(settings) | {"output": folder.absolute()}
        with self._recorded(record, name, folder, params):
            print(f"[{name}] -> {folder}", flush=True)
            start = time.monotonic()
            manifest = work(folder, journal=record)
            seconds = time.monotonic() - start
        manifest.write(folder, DONE)
        if there:
            publish(folder, there)
        print(f"[{name}] done in {seconds:.0f} s", flush=True)
        return Done(folder, manifest, record)

    @contextmanager
    def _recorded(
        self, record: Journal, name: str, folder: Path, params: dict[str, Any] | None
    ) -> Iterator[None]:
        """The time in which a stage is done: its own run, or a part of another one; the pipeline's own has
        begun, and ends later."""
        folder.mkdir(parents=True, exist_ok=True)
        if record == self.journal:
            yield
            return
        kind, _, title = name.partition("/")
        with alone(record.folder, output=folder):
            tags = {} if params is None else environment_tags() | {"stage": kind}
            record.begin(name=title or kind, parent=self.journal.folder, tags=tags)
            record.params(params or {})
            with ending(record), logged(record):
                yield
