"""A folder belongs to one run, which goes on in it."""

import json
from pathlib import Path
from typing import Any

from pipelines.config.errors import ConfigError
from pipelines.config.settings import leaves
from pipelines.training.resolved import ResolvedRun
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

IDENTITY = "identity.json"
MAX_NAMED = 5


def claim(run: ResolvedRun, output: Path | Folder) -> None:
    """Make a folder this run's own.

    Raises:
        ConfigError: as `check_same_run`.
    """
    check_same_run(run, output)
    open_folder(output).write_json(IDENTITY, run.settings)


def claimed(output: Path | Folder) -> dict[str, Any]:
    """The settings of the run that a folder belongs to.

    Raises:
        FileNotFoundError: it belongs to none.
    """
    return open_folder(output).read_json(IDENTITY)


def check_same_run(run: ResolvedRun, output: Path | Folder) -> None:
    """Find out whether a folder holds another run, whose checkpoints this one would take.

    Raises:
        ConfigError: it does; names the settings that differ, with both values.
    """
    try:
        written = claimed(output)
    except FileNotFoundError:
        return
    settings = json.loads(json.dumps(run.settings))
    former, now = dict(leaves(written)), dict(leaves(settings))
    changes = [
        f"{key} was {former.get(key, 'not set')}, now {now.get(key, 'not set')}"
        for key in sorted(former | now)
        if (key in former, former.get(key)) != (key in now, now.get(key))
    ]
    if changes:
        more = f"; and {len(changes) - MAX_NAMED} more" if len(changes) > MAX_NAMED else ""
        raise ConfigError(
            f"{output} holds a run with other settings or data: {'; '.join(changes[:MAX_NAMED])}{more}; "
            "set them as they were to go on with it, choose another output folder, or train on from it as a "
            f"new run by `vlp pretrain ... --from {output}`"
        )
