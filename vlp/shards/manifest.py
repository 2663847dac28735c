"""What a folder of shards says of itself: its shards, their counts and checksums."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

MANIFEST = "manifest.json"


def read_manifest(folder: Path | Folder) -> dict[str, Any]:
    """What a folder of shards holds; a ValueError names what to do where there is none."""
    folder = open_folder(folder)
    if MANIFEST not in folder.names():
        raise ValueError(
            f"{folder} is no folder of shards: it has no {MANIFEST}; make one with `vlp download`, "
            "or with `vlp data index` of tars that are there"
        )
    try:
        manifest = folder.read_json(MANIFEST)
        _ = [(shard["name"], shard["successes"]) for shard in manifest["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} is broken; delete it and run `vlp download` again") from error
    return manifest


def set_digest(shards: Sequence[Mapping[str, Any]]) -> str:
    """Identity of the content of a set, given the counts of its shards: SHA-256 over their checksums."""
    checksums = [shard["tar_sha256"] for shard in shards]
    return hashlib.sha256(json.dumps([checksums]).encode()).hexdigest()
