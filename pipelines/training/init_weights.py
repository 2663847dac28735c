"""The weights that a run starts from: random ones, or those of a model that was trained before."""

from pathlib import Path

import torch

from pipelines.checkpoints.checkpoint import MODEL, build_objective, find_checkpoint
from pipelines.checkpoints.store import find_damage
from pipelines.config.errors import ConfigError, UserError
from pipelines.config.identity import file_sha256
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.manifest import MANIFEST
from vlp.tokenizers.document_frequency import DocumentFrequency
from vlp.weights.initialization import InitFrom, initialize, read_weights
from vlp.weights.names import our_names


def fresh_objective(config: RunConfig) -> Objective:
    """The model of a run before its first step.

    Raises:
        ConfigError: the weights that it is to start from are missing, or are those of another model.
    """
    objective = _random_objective(config)
    if (source := config.init_from) is not None:
        file = weights_file(source)
        try:
            weights = our_names(read_weights(file), format=source.format)
            initialize(objective, weights, part=source.part)
        except ValueError as error:
            raise ConfigError(
                f"init_from: {file} (init_from.format {source.format}) does not fit {source.part}: {error}; "
                "choose other weights, or settings like theirs"
            ) from error
    return objective


def weights_file(source: InitFrom) -> Path:
    """The file of the weights to start from.

    Raises:
        ConfigError: it is missing, or the checkpoint that it belongs to is broken.
    """
    if source.format != "vlp":
        if not source.path.is_file():
            raise ConfigError(f"init_from.path: no such file: {source.path}")
        return source.path
    try:
        folder = find_checkpoint(source.path)
    except UserError as error:
        raise ConfigError(f"init_from.path: {error}") from error
    if (folder / MANIFEST).is_file() and (damage := find_damage(folder, only={MODEL})):
        raise ConfigError(f"init_from.path: {folder} is broken: {damage}; choose another checkpoint")
    return folder / MODEL


def weights_digest(source: InitFrom) -> str:
    """SHA-256 of the file of the weights to start from."""
    return file_sha256(weights_file(source))


def _random_objective(config: RunConfig) -> Objective:
    if config.data.document_frequency is None:
        return build_objective(config, document_frequency=None)
    table = DocumentFrequency.read(config.data.document_frequency)
    return build_objective(
        config, document_frequency=torch.from_numpy(table.counts), num_documents=table.num_documents
    )
