"""The weights of another model that a run starts from."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from pipelines.checkpoints.store import find_damage, read_saved
from pipelines.config.errors import ConfigError, blaming
from pipelines.config.identity import file_sha256
from vlp.checkpoint import MODEL, find_checkpoint
from vlp.imports import library_of
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.local import LocalFolder
from vlp.weights.initialization import InitFrom, initialize, read_weights, weights_file
from vlp.weights.names import our_names


class InitialWeights(NamedTuple):
    """A file of weights to start from, as it was found; workers read it from folders of their own."""

    source: InitFrom
    file: Path
    sha256: str

    def set_in(self, objective: Objective) -> None:
        """Give a model these weights.

        Raises:
            ConfigError: they are those of another model.
        """
        source = self.source
        assert source.format is not None
        try:
            weights = our_names(
                read_weights(self.file), format=source.format, encoder=objective.image_encoder
            )
            initialize(objective, weights, part=source.part)
        except ValueError as error:
            raise ConfigError(
                f"init_from: {self.file} (init_from.format {source.format}) does not fit {source.part}: "
                f"{error}; choose other weights, or settings like theirs"
            ) from error


def check_fits(run: RunConfig, source: RunConfig) -> None:
    """Whether a run can start from the weights of another one, which is still to be trained.

    Raises:
        ConfigError: it cannot.
    """
    assert run.init_from is not None
    with torch.device("meta"):
        own, others = (one.build(one.vocabulary(one.tokenizer.build())) for one in (run, source))
    try:
        initialize(own, others.state_dict(), part=run.init_from.part)
    except ValueError as error:
        raise ConfigError(
            f"init_from.run: the weights of {source.name} do not fit {run.init_from.part}: {error}; choose "
            "another run, or settings like its"
        ) from error


def find_weights(source: InitFrom) -> InitialWeights:
    """Find the file that `init_from` names.

    Raises:
        ConfigError: it is missing, or the checkpoint that it belongs to is broken.
    """
    source = replace(source, format=source.format or _format(source))
    if source.format != "vlp":
        with blaming("init_from.path: "):
            file = weights_file(source.path)
        return InitialWeights(source, file.absolute(), file_sha256(file))
    with blaming("init_from.path: "):
        folder = find_checkpoint(source.path).absolute()
    if not (folder / MANIFEST).is_file():  # it came without
        return InitialWeights(source, folder / MODEL, file_sha256(folder / MODEL))
    if damage := find_damage(folder, only={MODEL}):
        raise ConfigError(f"init_from.path: {folder} is broken: {damage}; choose another checkpoint")
    saved = read_saved(LocalFolder(folder))
    assert saved is not None
    return InitialWeights(source, folder / MODEL, saved.files[MODEL]["sha256"])


def _format(source: InitFrom) -> str:
    """Whose folder it is, by its files.

    Raises:
        ConfigError: it is a file, which does not tell.
    """
    if source.path.is_file():
        raise ConfigError(
            f"init_from.path: {source.path} is a file, which does not say whose names its weights have; set "
            "init_from.format to vlp, timm, open_clip or huggingface"
        )
    library = library_of(source.path)
    if library and library.name == "timm" and source.part == "model":
        raise ConfigError(
            f"init_from.part must be image_encoder where {source.path} is a folder of timm, got model"
        )
    return library.name if library else "vlp"
