"""Folders of Hugging Face `datasets`: what `save_to_disk` writes, and Parquet files named as on its hub."""

import json
import re
from pathlib import Path
from typing import Any

from pipelines.config.errors import ConfigError, UserError, nearest

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
PARQUET = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet")
"""Split of a file, its place among those of the split, and a fingerprint in older ones."""


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """The files of every split, in order; nothing if the folder is not such a data set.

    Raises:
        ConfigError: the data set was not saved whole, or as a selection of rows of its files.
    """
    if (folder / SAVED_SPLITS).is_file():
        names = _read(folder / SAVED_SPLITS)["splits"]
        return {name: _saved_files(folder / name) for name in names}
    if (folder / SAVED).is_file():
        return {str(_read(folder / SAVED).get("_split") or folder.name): _saved_files(folder)}
    for place in (folder, folder / "data"):
        files = sorted(place.glob("*.parquet"))
        matches = [PARQUET.fullmatch(file.name) for file in files]
        if files and all(matches):
            splits: dict[str, list[Path]] = {}
            for file, match in zip(files, matches, strict=True):
                splits.setdefault(match[1] if match else "", []).append(file)
            return splits
    return {}


def choose_split(folder: Path, splits: dict[str, list[Path]], split: str | None) -> list[Path]:
    """The files of one split, or of several: `train+validation`; of the only one, if none is named.

    Raises:
        ConfigError: there is no such split, or none is named of several.
    """
    if split is None:
        if len(splits) > 1:
            raise ConfigError(
                f"split: {folder} has the splits {', '.join(splits)}; choose one with "
                f"split={next(iter(splits))}, or several with split={'+'.join(splits)}"
            )
        return next(iter(splits.values()))
    names = split.split("+")
    for name in names:
        if name not in splits:
            raise ConfigError(f"split: {folder} has no split {name!r}{nearest(name, splits)}")
    return [file for name in dict.fromkeys(names) for file in splits[name]]


def _saved_files(folder: Path) -> list[Path]:
    state = _read(folder / SAVED)
    if state.get("_indices_data_files"):
        raise UserError(
            f"{folder} is a selection of rows; save it again after `dataset.flatten_indices()` to read it"
        )
    files = [folder / entry["filename"] for entry in state["_data_files"]]
    for file in files:
        if not file.is_file():
            raise UserError(f"{folder} is not complete: {SAVED} names {file.name}, which is not there")
    return files


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        key = "splits" if file.name == SAVED_SPLITS else "_data_files"
        if not isinstance(content[key], list) or not content[key]:
            raise ValueError(f"{key} lists nothing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not what `save_to_disk` writes: {error}") from error
    return content
