"""What travels with a job: the files of a folder, in one archive."""

import hashlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pathspec import GitIgnoreSpec

from pipelines.config.errors import UserError
from vlp.core.messages import size_text

LEFT_BEHIND = (".git/", ".venv/", "venv/", "results/", "__pycache__/", "*.pyc")
"""Patterns of what never travels: it is made anew there, or is a result."""
IGNORE_FILES = (".gitignore", ".rayignore")
MAX_BYTES = 500 * 2**20
"""What Ray takes."""
SHOWN = 5
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """The files of a folder that a job gets a copy of: all but what `.gitignore` and patterns leave out."""

    folder: Path
    files: tuple[Path, ...]
    """Relative to the folder, in order."""

    @classmethod
    def of(cls, folder: Path, *, exclude: Sequence[str] = ()) -> "Package":
        """What travels of a folder.

        Args:
            exclude: patterns as in a `.gitignore`, beside those of the folder's own.

        Raises:
            UserError: it is more than a cluster takes; names the largest files.
        """
        patterns = GitIgnoreSpec.from_lines([*LEFT_BEHIND, *exclude])
        package = cls(folder, tuple(sorted(_files(folder, Path(), [(Path(), patterns)]))))
        if package.num_bytes > MAX_BYTES:
            sizes = {file: (folder / file).stat().st_size for file in package.files}
            largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:SHOWN]
            named = ", ".join(f"{file} ({size_text(sizes[file])})" for file in largest)
            raise UserError(
                f"{folder} has {size_text(package.num_bytes)} and a job takes {size_text(MAX_BYTES)}; leave "
                f"files out by --exclude or .gitignore; the largest: {named}"
            )
        return package

    @cached_property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum((self.folder / file).stat().st_size for file in self.files)

    def holds(self, path: Path) -> bool:
        """Whether a file, or anything of a folder, travels; the path is relative to the folder."""
        path = Path(os.path.normpath(path))
        return any(path == file or path in file.parents for file in self.files)

    def write(self, archive: Path) -> str:
        """Write the archive; returns its digest, which depends on names and contents alone."""
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for file in self.files:
                entry = zipfile.ZipInfo(file.as_posix(), EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (self.folder / file).stat().st_mode << 16
                out.writestr(entry, (self.folder / file).read_bytes())
        return hashlib.sha256(archive.read_bytes()).hexdigest()


def _files(folder: Path, place: Path, above: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    """The files below a place of a folder that none of the patterns leaves out."""
    specs = [*above, *_own(folder, place)]
    for entry in sorted(os.scandir(folder / place), key=lambda entry: entry.name):
        path = place / entry.name
        if _is_left_out(path, specs, is_folder=entry.is_dir()):
            continue
        if entry.is_dir():
            yield from _files(folder, path, specs)
        elif entry.is_file():
            yield path


def _own(folder: Path, place: Path) -> Iterator[tuple[Path, GitIgnoreSpec]]:
    for name in IGNORE_FILES:
        if (file := folder / place / name).is_file():
            yield place, GitIgnoreSpec.from_lines(file.read_text().splitlines())


def _is_left_out(path: Path, specs: Sequence[tuple[Path, GitIgnoreSpec]], *, is_folder: bool) -> bool:
    """What the nearest patterns say that say anything, as git has it."""
    for place, spec in reversed(specs):
        relative = path.relative_to(place).as_posix() + "/" * is_folder
        if (verdict := spec.check_file(relative).include) is not None:
            return verdict
    return False
