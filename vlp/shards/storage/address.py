"""Folders by their addresses: paths of this machine, and URIs of object stores."""

from pathlib import Path
from typing import Annotated, Any

from vlp.core.plain import Marker
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder


def open_folder(address: str | Path | Folder) -> Folder:
    """The folder of a path, or of a URI such as s3://bucket/shards; a folder itself stays what it is.

    Raises:
        ValueError: it is neither, or no file system is known for the URI.
    """
    if isinstance(address, Folder):
        return address
    if not isinstance(address, str | Path):
        raise ValueError(f"must be a folder, got {address!r}")
    text = str(address)
    if "://" not in text:
        return LocalFolder(Path(text))
    if text.startswith("file://"):
        return LocalFolder(Path(text.removeprefix("file://")))
    from vlp.shards.storage.remote import RemoteFolder  # its file systems take a while to import

    return RemoteFolder(text)


class ByAddress(Marker):
    """Marks a setting that is given as an address; read by pydantic, as in `StrictConfig`."""

    kind = str

    def read(self, value: Any) -> Folder:
        return open_folder(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        return {"type": "function-plain", "function": {"type": "no-info", "function": open_folder}}


AnyFolder = Annotated[Folder, ByAddress()]
"""The type of such a setting."""
