"""Whether results can be written where a machine's settings say."""

from pipelines.config.errors import ConfigError
from pipelines.config.machine import MachineConfig
from vlp.shards.storage.folder import FolderError


def check_storage(machine: MachineConfig) -> None:
    """Try to write to the storage, where that is not the work folder.

    Raises:
        ConfigError: it cannot be written; names the reason.
    """
    there = machine.published(machine.work_folder)
    if there is None:
        return
    try:
        there.check_writable()
    except OSError as error:
        reason = str(error) if isinstance(error, FolderError) else f"{there}: {error.strerror}"
        raise ConfigError(f"machine.storage: cannot write to {reason}") from error
