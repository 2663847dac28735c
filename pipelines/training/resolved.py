"""A run with all that its settings name: checked, opened and hashed once, then handed on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.checkpoints.checkpoint import TRAINING, read_trained
from pipelines.config.errors import blaming
from pipelines.config.identity import file_sha256, fingerprint
from pipelines.config.machine import MachineConfig
from pipelines.config.plugins import with_digests
from pipelines.config.settings import absolute_paths, merged, nested, to_dict
from pipelines.evaluation.evaluate import check_evaluation
from pipelines.shards.remote import check_cache
from pipelines.tracking.held import held
from pipelines.training.checks import (
    check_captions,
    check_length,
    check_machine,
    check_num_samples,
    check_on_machine,
)
from pipelines.training.init_weights import InitialWeights, find_weights
from vlp.checkpoint import MODEL
from vlp.data.loader import open_shards
from vlp.objectives import Objective
from vlp.run import RunConfig
from vlp.shards.shard_set import ShardSet
from vlp.tokenizers import Tokenizer
from vlp.tokenizers.document_frequency import DocumentFrequency


@dataclass(frozen=True)
class ResolvedRun:
    """What a run needs, ready to be used; it is sent to the workers as it is, but for its model."""

    config: RunConfig
    """Its paths are absolute."""
    shards: ShardSet
    settings: Mapping[str, Any]
    """The settings that decide the result, with the content of files in place of their paths."""
    tokenizer: Tokenizer
    document_frequency: DocumentFrequency | None
    weights: InitialWeights | None
    start: Path | None = None
    """Checkpoint of another run that it begins from, at its step; None begins with the first one."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def identity(self) -> str:
        """What decides the result, as 64 hex digits."""
        return fingerprint(self.settings)

    @property
    def folder_name(self) -> str:
        """A folder's name that only runs with this result have."""
        return f"{self.config.name}-{self.identity[:8]}"

    @property
    def label(self) -> str:
        """Begins every line that is said of the run."""
        return f"pretrain {self.config.name}"

    @cached_property
    def objective(self) -> Objective:
        """The model before its first step, for this process to look at; who trains one builds one.

        Raises:
            ConfigError: as `build`.
        """
        return self.build()

    def build(self) -> Objective:
        """A model before its first step.

        Raises:
            ConfigError: the weights that it is to start from are those of another model.
        """
        objective = self.config.build(self.config.vocabulary(self.tokenizer, self.document_frequency))
        if self.weights:
            self.weights.set_in(objective)
        if self.start:
            objective.load_state_dict(read_trained(self.start))
        return objective

    def with_config(self, config: RunConfig) -> "ResolvedRun":
        """The same run, of which more is known by now, such as a threshold."""
        known = replace(self, config=config)
        if "objective" in self.__dict__:  # it would be built alike
            known.__dict__["objective"] = self.objective
        return known

    def without_model(self) -> "ResolvedRun":
        """The same run, whose model takes no memory any more."""
        return replace(self)


def resolve(config: RunConfig, machine: MachineConfig, *, start: Path | None = None) -> ResolvedRun:
    """Look at everything that a run needs, so that nothing stops it after it has started.

    Args:
        start: whole checkpoint of another run to begin from: its weights, its optimizer and its step.

    Raises:
        ConfigError: the first mistake.
    """
    check_on_machine(config, machine)
    check_machine(machine)
    if source := config.init_from:
        config = replace(config, init_from=replace(source, path=held(source.path, machine)))
    with blaming("tokenizer: "):
        tokenizer = config.tokenizer.build()
    with blaming("data: "):
        shards = open_shards(absolute_paths(config.data), captioned=config.objective.reads_captions)
        table = document_frequency(config, tokenizer)
    check_num_samples(config, shards)
    check_captions(config, shards, tokenizer)
    with blaming("objective."):
        config.objective.check_files()
    check_length(config)
    weights = find_weights(config.init_from) if config.init_from else None
    settings = _result_settings(config, shards, tokenizer, weights)
    if start is not None:
        settings["start"] = {name: file_sha256(start / name) for name in (MODEL, TRAINING)}
    run = ResolvedRun(absolute_paths(config), shards, settings, tokenizer, table, weights, start)
    if weights:
        _ = run.objective  # raises where they do not fit
    check_evaluation(config.evaluation)
    check_cache(config.data, shards, machine.shard_cache)
    return run


def document_frequency(config: RunConfig, tokenizer: Tokenizer) -> DocumentFrequency | None:
    """The counts of `vlp docfreq`, where a run names some; a ValueError if it needs others."""
    file = config.data.document_frequency
    if file is None:
        if why := config.why_docfreq:
            raise ValueError(f"{why}: set data.document_frequency, made with `vlp docfreq`")
        return None
    table = DocumentFrequency.read(file)
    if table.tokenizer != tokenizer.identity:
        raise ValueError(
            f"{file} counts the tokens of another tokenizer, or another context length "
            f"({table.tokenizer}, the run's is {tokenizer.identity})"
        )
    return table


def _result_settings(
    config: RunConfig, shards: ShardSet, tokenizer: Tokenizer, weights: InitialWeights | None
) -> dict[str, Any]:
    """The settings that decide a run's result, with the content of its inputs in place of their paths."""
    settings = with_digests(to_dict(config))
    settings["tokenizer"] = tokenizer.identity
    settings["data"]["shards"] = shards.digest
    settings["data"]["mix"] = config.data.shares
    for key in ("where", "selections"):  # the digest of the shards is of the samples that are taken
        del settings["data"][key]
    if table := config.data.document_frequency:
        settings["data"]["document_frequency"] = file_sha256(table)
    if weights:
        settings["init_from"] |= {"path": weights.sha256, "format": weights.source.format}
    for key, file in config.objective.files.items():
        settings["objective"] = merged(settings["objective"], nested(key, file_sha256(file)))
    del settings["evaluation"]  # measures the result, does not change it
    for key in ("action", "max_in_a_row", "num_saved"):  # whether there is a result, not which
        del settings["training"]["on_bad_step"][key]
    return settings
