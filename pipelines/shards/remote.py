"""What training needs of a set of shards in an object store: a cache with enough room, on a local disk."""

import math

from pipelines.config.errors import ConfigError
from vlp.data.config import DataConfig
from vlp.shards.shard_set import ShardSet
from vlp.shards.storage.cache import ShardCache


def check_cache(config: DataConfig, shards: ShardSet, cache: ShardCache | None) -> None:
    """Find a cache that is missing, or so small that every shard would be copied again and again.

    Raises:
        ConfigError: names what to set.
    """
    if not shards.is_remote:
        return
    remote = next(folder for folder in shards.folders if folder.local_path is None)
    if cache is None:
        raise ConfigError(
            f"data.shards: {remote} is remote; set machine.cache.folder to a folder on a local disk, where "
            "shards are copied to as they are needed"
        )
    needed = num_bytes_needed(config, shards) / 1e9
    if needed > cache.gigabytes:
        remedy = {
            "full": "or set data.shuffle=block, which needs few shards at a time",
            "block": "or lower data.shuffle_window",
        }[config.shuffle]
        raise ConfigError(
            f"machine.cache.gigabytes is {cache.gigabytes:g}, and data.shuffle={config.shuffle} of {remote} "
            f"needs {math.ceil(10 * needed) / 10:g} at a time; raise it, {remedy}"
        )


def num_bytes_needed(config: DataConfig, shards: ShardSet) -> float:
    """The size of the shards in use: all of them, or the current block of them and the next one."""
    sizes = [[stats.tar_bytes for stats in manifest.shards] for manifest in shards.manifests]
    if config.shuffle == "full":
        return sum(map(sum, sizes))
    return sum(sum(sorted(set_sizes)[-2 * config.shuffle_window :]) for set_sizes in sizes)
