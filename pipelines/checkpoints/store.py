"""The checkpoints of a run on disk: which are whole, which one to go on from, and which are kept."""

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config.errors import UserError
from pipelines.config.identity import file_sha256
from vlp.shards.manifest import MANIFEST, Manifest
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder


@dataclass(frozen=True)
class Saved:
    """A checkpoint, as its manifest describes it."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What was measured of it; {} if nothing was, as yet."""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`size` and `sha256` by name."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return checkpoint_name(self.step)


@dataclass(frozen=True, kw_only=True)
class RunManifest(Manifest):
    """The manifest of a finished run; its digest is that of the weights."""

    checkpoint: str
    """Folder of the last checkpoint, in that of the run."""
    steps: int


def checkpoint_name(step: int) -> str:
    """Name of the folder of a checkpoint."""
    return f"step_{step:07d}"


def write_manifest(folder: Path, *, step: int, metrics: Mapping[str, float]) -> None:
    """Enter size and checksum of every file of a checkpoint; written last."""
    files = {
        file.name: {"size": file.stat().st_size, "sha256": file_sha256(file)}
        for file in sorted(folder.iterdir())
    }
    LocalFolder(folder).write_json(MANIFEST, {"step": step, "metrics": dict(metrics), "files": files})


def record_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Enter what was measured of a checkpoint after it was written."""
    content = json.loads((folder / MANIFEST).read_bytes())
    LocalFolder(folder).write_json(MANIFEST, content | {"metrics": dict(metrics)})


def find_damage(folder: Path, only: Collection[str] | None = None) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are as they were written.

    Args:
        only: names of the files to look at; None for all.
    """
    saved = read_saved(open_folder(folder))
    if saved is None:
        return f"its {MANIFEST} is missing or cannot be read"
    for name, written in saved.files.items():
        file = folder / name
        if only is not None and name not in only:
            continue
        if not file.is_file():
            return f"its {name} is missing"
        if (size := file.stat().st_size) != written["size"]:
            return f"its {name} has {size:,} of {written['size']:,} bytes"
        if file_sha256(file) != written["sha256"]:
            return f"its {name} has other content than was written"
    return None


def newest_whole(checkpoints: Path, *, label: str) -> Path | None:
    """The checkpoint to go on from; None where there is none at all.

    Broken ones are passed over, each with a line that says why, and are set aside as `step_N.broken` until
    the run writes that step again.

    Args:
        checkpoints: folder of the checkpoints, one folder each.
        label: begins the line.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    broken: list[tuple[Path, str]] = []
    for name in reversed(checkpoint_names(checkpoints)):
        folder = checkpoints / name
        if (damage := find_damage(folder)) is None:
            for other, why in broken:
                print(
                    f"[{label}] checkpoint {other.name} is broken: {why}; going on from {folder.name}",
                    flush=True,
                )
                _set_aside(other)
            return folder
        broken.append((folder, damage))
    if broken:
        first, why = broken[0]
        raise UserError(
            f"{checkpoints} has {len(broken)} checkpoints and all are broken ({first.name}: {why}); "
            "put their files back, or delete this folder to start over"
        )
    return None


@dataclass(frozen=True)
class Retention:
    """Which checkpoints of a run stay on disk."""

    last: int
    """The newest ones; at least 1."""
    best: int = 0
    """Those with the highest `metric`, of equal ones the newer."""
    metric: str | None = None
    every_steps: int | None = None
    """Those at multiples of this many steps; 1 keeps all."""
    steps: Collection[int] = ()
    """Those of these steps."""

    def choose(self, saved: Sequence[Saved]) -> set[int]:
        """The steps of those that stay."""
        by_step = sorted(saved, key=lambda one: one.step)
        kept = by_step[-self.last :]
        if self.best:
            kept += ranked(by_step, self.metric)[: self.best]
        if self.every_steps is not None:
            kept += [one for one in by_step if one.step % self.every_steps == 0]
        kept += [one for one in by_step if one.step in self.steps]
        return {one.step for one in kept}

    def apply(self, checkpoints: Path | Folder, *, step: int, keep: Collection[str] = ()) -> None:
        """Delete what need not stay of the checkpoints up to a step; later ones will be written again.

        Args:
            keep: names of those that stay for now.
        """
        place = open_folder(checkpoints)
        kept = self.choose([one for one in list_saved(place) if one.step <= step])
        for name in checkpoint_names(place):
            if _step(name) <= step and _step(name) not in kept and name not in keep:
                (place / name).delete(MANIFEST)  # one that is half deleted is none
                place.delete_folder(name)


@dataclass(frozen=True)
class CheckpointPlace:
    """Where the checkpoints of a run lie, one folder each, and which of them stay."""

    folder: Path
    retention: Retention
    label: str
    """Begins every line that is said of them, such as `pretrain flip`."""
    mirror: Folder | None = None
    """Where they are copied to."""
    copy_record: Callable[[], None] | None = None
    """Copies the run's journal before each checkpoint: who goes on from one knows all that was measured
    before."""


def ranked(saved: Sequence[Saved], metric: str | None) -> list[Saved]:
    """Those that have the metric, the best first, of equal ones the newer first."""
    measured = [one for one in saved if metric in one.metrics]
    return sorted(measured, key=lambda one: (one.metrics[str(metric)], one.step), reverse=True)


def list_saved(checkpoints: Path | Folder) -> list[Saved]:
    """The checkpoints that have a manifest, by step."""
    place = open_folder(checkpoints)
    found = [read_saved(place / name) for name in checkpoint_names(place)]
    return [saved for saved in found if saved is not None]


def aside(folder: Path) -> Path:
    """Where a broken checkpoint is set aside."""
    return folder.with_name(f"{folder.name}.broken")


def _set_aside(folder: Path) -> None:
    shutil.rmtree(aside(folder), ignore_errors=True)
    folder.rename(aside(folder))


def checkpoint_names(checkpoints: Path | Folder) -> list[str]:
    """Names of the folders that are named as checkpoints, whole or not, by step."""
    names = open_folder(checkpoints).folders()
    return sorted((name for name in names if re.fullmatch(r"step_\d+", name)), key=_step)


def _step(name: str) -> int:
    return int(name.removeprefix("step_"))


def read_saved(checkpoint: Folder) -> Saved | None:
    """A checkpoint by its manifest; None unless that is there and has all that it should."""
    try:
        content = checkpoint.read_json(MANIFEST)
        files = content["files"]
        is_complete = all({"size", "sha256"} <= set(file) for file in files.values())
        saved = Saved(content["step"], content["metrics"], files)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return saved if is_complete else None
