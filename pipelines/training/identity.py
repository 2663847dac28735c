"""What decides a run's result; a folder belongs to one such run, which goes on in it."""

import json
from pathlib import Path
from typing import Any

from pipelines.config.errors import UserError
from pipelines.config.identity import file_sha256, fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.settings import leaves, merged, nested, to_dict
from pipelines.training.init_weights import weights_digest
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

IDENTITY = "identity.json"
MAX_NAMED = 5


def run_identity(config: RunConfig) -> str:
    """Identity of a run's result."""
    return fingerprint(result_settings(config))


def result_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's result, with the content of its inputs in place of their paths."""
    settings = to_dict(config)
    settings["tokenizer"] = config.tokenizer.build().identity
    settings["data"]["shards"] = ShardSet(*config.data.folders).digest
    settings["data"]["mix"] = config.data.shares
    if table := config.data.document_frequency:
        settings["data"]["document_frequency"] = file_sha256(table)
    if config.init_from:
        settings["init_from"]["path"] = weights_digest(config.init_from)
    for key, file in config.objective.files.items():
        settings["objective"] = merged(settings["objective"], nested(key, file_sha256(file)))
    del settings["evaluation"]  # measures the result, does not change it
    for key in ("action", "max_in_a_row", "num_saved"):  # whether there is a result, not which
        del settings["training"]["on_bad_step"][key]
    return settings


def run_mirror(config: RunConfig, machine: MachineConfig) -> Folder | None:
    """The folder of a run's checkpoints in the mirror, which is named for what decides the run's result."""
    if machine.checkpoints.mirror is None:
        return None
    return machine.checkpoints.mirror.absolute() / f"{config.name}-{run_identity(config)[:8]}"


def claim(config: RunConfig, output: Path | Folder) -> None:
    """Make a folder this run's own.

    Raises:
        UserError: as `check_same_run`.
    """
    check_same_run(config, output)
    open_folder(output).write_json(IDENTITY, result_settings(config))


def check_same_run(config: RunConfig, output: Path | Folder) -> None:
    """Find out whether a folder holds another run, whose checkpoints this one would take.

    Raises:
        UserError: it does; names the settings that differ, with both values.
    """
    try:
        written = open_folder(output).read_json(IDENTITY)
    except FileNotFoundError:
        return
    settings = json.loads(json.dumps(result_settings(config)))
    former, now = dict(leaves(written)), dict(leaves(settings))
    changes = [
        f"{key} was {former.get(key, 'not set')}, now {now.get(key, 'not set')}"
        for key in sorted(former | now)
        if (key in former, former.get(key)) != (key in now, now.get(key))
    ]
    if changes:
        more = f"; and {len(changes) - MAX_NAMED} more" if len(changes) > MAX_NAMED else ""
        raise UserError(
            f"{output} holds a run with other settings or data: {'; '.join(changes[:MAX_NAMED])}{more}; "
            "set them as they were to go on with it, or choose another output folder"
        )
