"""A URL list in an object store, copied to this machine for as long as it is read."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.config.errors import ConfigError, UserError
from pipelines.ingest.patterns import expand_braces
from pipelines.ingest.settings import DownloadConfig
from pipelines.ingest.url_list import is_list
from vlp.shards.storage.address import open_folder
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder

CHUNK_BYTES = 1 << 23


@contextmanager
def list_on_this_machine(config: DownloadConfig) -> Iterator[DownloadConfig]:
    """The same settings, whose list is a file or folder of this machine: a copy, where it lies elsewhere.

    Raises:
        ConfigError: there is no such list, its store refuses, or it holds the images themselves.
    """
    if config.is_here:
        yield config
        return
    place = open_folder(config.url_list)
    if config.is_local:
        raise ConfigError(f"url_list: {place}: images are read from files of this machine; copy them here")
    with TemporaryDirectory(prefix="vlp-list-") as temporary:
        try:
            copy = _copy(place, Path(temporary), config)
        except OSError as error:
            raise ConfigError(f"url_list: {error}") from error
        try:
            yield replace(config, url_list=LocalFolder(copy))
        except UserError as error:  # names what the user named
            raise type(error)(str(error).replace(str(copy), str(place))) from error


def _copy(place: Folder, target: Path, config: DownloadConfig) -> Path:
    """Copy a file, the files of a pattern, or the lists of a folder."""
    above, named = place.parent, expand_braces(place.name)
    missing = sorted(set(named) - above.names())
    if missing == [place.name]:
        lists = sorted(name for name in place.names() if is_list(name, config.input_format))
        above, named, missing = (place, lists, []) if lists else (above, named, missing)
    if missing:
        raise ConfigError(f"url_list: no such file, nor a folder with lists: {above / missing[0]}")
    for name in named:
        with above.open(name) as source, (target / name).open("wb") as copy:
            shutil.copyfileobj(source, copy, CHUNK_BYTES)
    return target / named[0] if len(named) == 1 else target
