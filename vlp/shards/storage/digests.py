"""SHA-256 of files, which are not read again as long as they stay as they are."""

import hashlib
import time

from vlp.shards.storage.folder import Folder

CHUNK_BYTES = 1 << 23
SETTLED_SECONDS = 2.0
"""A file that was changed less long ago may change again in the same tick of the file system's clock."""


class Digests:
    """SHA-256 of files; one of the same address, size and time of change is taken to be the same, as by make.

    Args:
        memory: folder in which they are remembered; it may be deleted at any time.
    """

    def __init__(self, memory: Folder) -> None:
        self.memory = memory
        self._known: dict[str, str] = {}

    def of(self, folder: Folder, name: str) -> str:
        """The digest of a file, as 64 hex digits."""
        size, seconds = folder.stamp(name)
        if time.time() - seconds < SETTLED_SECONDS:
            return sha256(folder, name)
        stamp = f"{folder.absolute() / name} {size} {seconds}"
        key = hashlib.sha256(stamp.encode()).hexdigest()[:32]
        if key not in self._known:
            self._known[key] = self._remembered(key) or self._remember(key, sha256(folder, name))
        return self._known[key]

    def _remembered(self, key: str) -> str | None:
        try:
            return self.memory.read(key).decode()
        except FileNotFoundError:
            return None

    def _remember(self, key: str, digest: str) -> str:
        self.memory.write(key, digest.encode())
        return digest


def sha256(folder: Folder, name: str) -> str:
    """The digest of a file, as 64 hex digits."""
    digest = hashlib.sha256()
    with folder.open(name) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
