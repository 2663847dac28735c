"""What a folder says of its content: one JSON file, written last, so a folder without it is not complete."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The part that every content has; each kind has a class of its own."""

    digest: str
    """Identity of the content: what is made of it is made again when it changes."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """The inverse; a KeyError, TypeError or AttributeError where `to_json` gave no such thing."""
        return cls(**content)

    def write(self, folder: Path | Folder, name: str = MANIFEST) -> None:
        """Say that a folder is complete."""
        open_folder(folder).write_json(name, self.to_json())

    @classmethod
    def read(cls, folder: Path | Folder, name: str = MANIFEST) -> Self:
        """What a folder holds.

        Raises:
            FileNotFoundError: it is not complete.
            ValueError: the file is broken; one line that names it and the remedy.
        """
        place = open_folder(folder)
        try:
            return cls.from_json(place.read_json(name))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{place / name} is broken; delete it and run the command that made it again"
            ) from error
