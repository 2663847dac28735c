"""The weights of another model that a run starts from."""

from pathlib import Path
from typing import NamedTuple

from pipelines.checkpoints.store import find_damage, read_saved
from pipelines.config.errors import ConfigError, blaming
from pipelines.config.identity import file_sha256
from vlp.checkpoint import MODEL, find_checkpoint
from vlp.objectives import Objective
from vlp.shards.manifest import MANIFEST
from vlp.shards.storage.local import LocalFolder
from vlp.weights.initialization import InitFrom, initialize, read_weights, weights_file
from vlp.weights.names import our_names


class InitialWeights(NamedTuple):
    """A file of weights to start from, as it was found."""

    source: InitFrom
    file: Path
    sha256: str

    def set_in(self, objective: Objective) -> None:
        """Give a model these weights.

        Raises:
            ConfigError: they are those of another model.
        """
        source = self.source
        try:
            weights = our_names(read_weights(self.file), format=source.format)
            initialize(objective, weights, part=source.part)
        except ValueError as error:
            raise ConfigError(
                f"init_from: {self.file} (init_from.format {source.format}) does not fit {source.part}: "
                f"{error}; choose other weights, or settings like theirs"
            ) from error


def find_weights(source: InitFrom) -> InitialWeights:
    """Find the file that `init_from` names.

    Raises:
        ConfigError: it is missing, or the checkpoint that it belongs to is broken.
    """
    if source.format != "vlp":
        with blaming("init_from.path: "):
            file = weights_file(source.path)
        return InitialWeights(source, file, file_sha256(file))
    with blaming("init_from.path: "):
        folder = find_checkpoint(source.path)
    if not (folder / MANIFEST).is_file():  # it came without
        return InitialWeights(source, folder / MODEL, file_sha256(folder / MODEL))
    if damage := find_damage(folder, only={MODEL}):
        raise ConfigError(f"init_from.path: {folder} is broken: {damage}; choose another checkpoint")
    saved = read_saved(LocalFolder(folder))
    assert saved is not None
    return InitialWeights(source, folder / MODEL, saved.files[MODEL]["sha256"])
