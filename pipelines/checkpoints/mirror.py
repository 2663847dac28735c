"""A copy of a run's checkpoints in another place, which outlives the machine that trains."""

from pathlib import Path

from pipelines.checkpoints.store import (
    Retention,
    Saved,
    checkpoint_names,
    find_damage,
    list_saved,
    read_saved,
)
from pipelines.config.errors import UserError
from pipelines.config.machine import MachineConfig
from vlp.shards.manifest import MANIFEST
from vlp.shards.published import put, take
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.lock import locked
from vlp.shards.storage.whole import writing_folder


def missing(checkpoints: Path, mirror: Folder, retention: Retention) -> list[Saved]:
    """The checkpoints that are to be kept in the mirror and are not there yet, the newest first.

    What is kept is chosen among those of both places: a new machine has only the one it went on from.
    """
    here, there = list_saved(checkpoints), list_saved(mirror)
    newest = max((one.step for one in here), default=0)
    known = {one.step: one for one in (*there, *here) if one.step <= newest}
    kept = retention.choose(list(known.values()))
    return [one for one in reversed(here) if one.step in kept and one not in there]


def upload(checkpoint: Path, mirror: Folder) -> None:
    """Copy a checkpoint to a mirror; it counts as one there with its manifest, which comes last."""
    place = mirror / checkpoint.name
    here, there = read_saved(open_folder(checkpoint)), read_saved(place)
    if here and there and here.files == there.files:  # it was measured since
        place.write(MANIFEST, (checkpoint / MANIFEST).read_bytes())
        return
    place.delete(MANIFEST)  # of a former checkpoint of this step
    files = sorted(checkpoint.iterdir(), key=lambda file: file.name == MANIFEST)
    for file in files:
        put(file, place)


def restore(checkpoints: Path, mirror: Folder, *, label: str) -> None:
    """Bring the mirror's newest whole checkpoint to a run, unless it has a whole one as new.

    Broken ones are passed over, each with a line that says why, and no longer count as checkpoints there.

    Args:
        checkpoints: folder of the run's checkpoints, one folder each.
        label: begins the lines.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    whole = (n for n in reversed(checkpoint_names(checkpoints)) if find_damage(checkpoints / n) is None)
    here = next(whole, None)
    broken: dict[str, str] = {}
    for name in reversed(checkpoint_names(mirror)):
        if name == here:
            break
        if MANIFEST not in (mirror / name).names():
            continue  # it was not copied to its end
        if (damage := _take(mirror / name, checkpoints / name)) is None:
            print(f"[{label}] took checkpoint {name} from {mirror}", flush=True)
            here = name
            break
        broken[name] = damage
    if broken and here is None:
        first, why = next(iter(broken.items()))
        raise UserError(
            f"machine.storage: {mirror} has {len(broken)} checkpoints and all are broken "
            f"({first}: {why}); delete this folder to start over"
        )
    for name, why in broken.items():
        print(f"[{label}] checkpoint {name} in {mirror} is broken: {why}; taking {here}", flush=True)
        (mirror / name).delete(MANIFEST)


def ensure(checkpoint: Path, mirror: Folder) -> None:
    """Bring a certain checkpoint to a node that lacks it; its workers wait for the one that does so.

    Raises:
        UserError: it is broken in the mirror.
    """
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with locked(checkpoint.parent / f".{checkpoint.name}.lock"):
        if find_damage(checkpoint) is None:
            return
        if damage := _take(mirror / checkpoint.name, checkpoint):
            raise UserError(f"{mirror / checkpoint.name} is broken: {damage}; run the same command again")


def ensure_here(checkpoint: Path, machine: MachineConfig) -> None:
    """Bring a checkpoint that lies in the work folder of another node, if the machine's settings have it
    published.

    Raises:
        UserError: it is broken there.
    """
    if there := machine.published(checkpoint):
        ensure(checkpoint, there.parent)


class _BrokenError(Exception):
    """What is wrong with a checkpoint that is being copied."""


def _take(checkpoint: Folder, place: Path) -> str | None:
    """Copy a checkpoint to its place on this machine, unless it is broken; then why."""
    try:
        with writing_folder(place) as copy:
            for name in checkpoint.names():
                take(checkpoint, copy / name)
            if damage := find_damage(copy):
                raise _BrokenError(damage)
    except _BrokenError as error:
        return str(error)
    return None
