"""The steps of a pipeline, each in a folder named for its settings and inputs: done once, resumed if cut."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from pipelines.config.errors import blaming
from pipelines.config.identity import fingerprint
from pipelines.config.settings import flat_params
from pipelines.tracking.environment import environment_tags
from pipelines.tracking.journal import Journal, ending
from pipelines.tracking.session import Made, Work, alone

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
    folders: dict[str, Path] = field(default_factory=dict)
    """Of the stages so far, by name."""

    def run(
        self, name: str, work: Work[Made], makes: type[Made], *, settings: Any, identity: Any, title: str = ""
    ) -> Done[Made]:
        """Do a stage unless it was done; one that was interrupted goes on in the same folder.

        Args:
            makes: class of its manifest.
            settings: dataclass that is tracked as the stage's parameters.
            identity: what decides the result: the settings, with digests in place of the inputs' paths.
            title: name of the tracked run, if not the stage's.

        Raises:
            ConfigError: what the stage said of its output can no longer be read.
        """
        label = f"{name}-{fingerprint(name, identity)[:8]}"
        folder = self.folders[name] = self.folder / label
        # Beside the pipeline's: one of other settings, for which the stage is unchanged, finds its record.
        journal = Journal(self.journal.folder.parent / label)
        if (folder / DONE).is_file():
            print(f"[{name}] unchanged: {folder}", flush=True)
            with blaming():
                return Done(folder, makes.read(folder, DONE), journal)
        with alone(journal.folder, output=folder):
            tags = environment_tags() | {"stage": name}
            journal.begin(name=title or name, parent=self.journal.folder, tags=tags)
            journal.params(flat_params(settings) | {"output": folder.absolute()})
            folder.mkdir(parents=True, exist_ok=True)
            print(f"[{name}] -> {folder}", flush=True)
            start = time.monotonic()
            with ending(journal):
                manifest = work(folder, journal=journal)
                seconds = time.monotonic() - start
                journal.metrics({"seconds": seconds})
        manifest.write(folder, DONE)
        print(f"[{name}] done in {seconds:.0f} s", flush=True)
        return Done(folder, manifest, journal)
