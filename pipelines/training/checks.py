"""What would stop a run, or make it pointless, found before any worker starts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import lcm

from pipelines.checkpoints.mirror import check_mirror
from pipelines.compute.cluster import check_gpus_here
from pipelines.config.errors import ConfigError, UserError, blaming
from pipelines.config.machine import MachineConfig
from pipelines.config.worker_counts import WorkerCounts
from pipelines.evaluation.evaluate import check_evaluation
from pipelines.shards.remote import check_cache
from pipelines.training.init_weights import fresh_objective
from vlp.data.loader import data_order, open_shards
from vlp.run import RunConfig, validation_metric
from vlp.shards.shard_set import ShardSet
from vlp.tokenizers.document_frequency import DocumentFrequency


def check_run(config: RunConfig, machine: MachineConfig) -> ShardSet:
    """Look at everything that a run needs; returns its data.

    Raises:
        ConfigError: the first mistake.
    """
    check_on_machine(config, machine)
    check_gpus_here(machine, machine.num_gpus)
    check_mirror(machine.checkpoints.mirror)
    with blaming():
        config.check_files()
    check_length(config)
    with blaming("data: "):
        shards = open_shards(config.data)
        _check_document_frequency(config)
    _check_num_samples(config, shards)
    if config.init_from:
        fresh_objective(config)
    check_evaluation(config.evaluation)
    check_cache(config.data, shards, machine.cache)
    return shards


def check_runs(runs: Sequence[RunConfig], machine: MachineConfig) -> None:
    """Look at everything that the runs of a pipeline need, so that the last one's mistake costs no training.

    Raises:
        ConfigError: the first mistake; names its run.
    """
    for run in runs:
        with named(run):
            check_run(run, machine)


@contextmanager
def named(run: RunConfig) -> Iterator[None]:
    """Put the name of the run before a mistake in it."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{run.name}: {error}") from error


def check_on_machine(config: RunConfig, machine: MachineConfig) -> None:
    """Whether a run can be divided among the workers, and its checkpoints compared; looks at no file.

    Raises:
        ConfigError: names the keys and the nearest values that work.
    """
    batch_size, counts = config.training.batch_size, machine.worker_counts
    if any(batch_size % count for count in counts):
        raise ConfigError(_uneven(batch_size, counts))
    share = batch_size // max(counts)
    parts = machine.memory.batch_parts
    if parts > share:
        raise ConfigError(
            f"machine.memory.batch_parts is {parts} and each of {max(counts)} workers has {share} of "
            f"the {batch_size} pairs of training.batch_size: fewer than parts; "
            f"set machine.memory.batch_parts to {share} at most"
        )
    if machine.checkpoints.keep_best and validation_metric(config) is None:
        raise ConfigError(
            f"machine.checkpoints.keep_best is {machine.checkpoints.keep_best} and nothing is measured while "
            f"{config.name} trains; set evaluation.every_steps and a set of evaluation, or "
            "machine.checkpoints.keep_best to 0"
        )


def check_length(config: RunConfig) -> None:
    """Whether the length of a run pays for a step; builds its model where the length is of FLOPs.

    Raises:
        ConfigError: it does not; names the key.
    """
    with blaming():
        config.check_length()


def _uneven(batch_size: int, counts: WorkerCounts) -> str:
    """Says which numbers of workers do not divide a batch, and which batches they all divide."""
    multiple = lcm(*counts)
    lower = batch_size - batch_size % multiple
    nearest = " or ".join(str(size) for size in (lower, lower + multiple) if size)
    if not counts.is_elastic:
        return (
            f"training.batch_size {batch_size} is not a multiple of machine.num_workers {counts}; "
            f"set training.batch_size to {nearest}, or machine.num_workers to a divisor of {batch_size}"
        )
    remainders = [
        f"{batch_size} = {batch_size // n} x {n} + {batch_size % n}" for n in counts if batch_size % n
    ]
    return (
        f"training.batch_size {batch_size} is not a multiple of every number in machine.num_workers "
        f"{counts}: {', '.join(remainders[:3])}; set training.batch_size to {nearest}, multiples of "
        f"{multiple}, or machine.num_workers to a range in which every number divides {batch_size}"
    )


def _check_num_samples(config: RunConfig, shards: ShardSet) -> None:
    batch_size = config.training.batch_size
    if len(shards) < batch_size:
        raise ConfigError(
            f"training.batch_size is {batch_size} and {config.data.shards} holds {len(shards)} samples: "
            f"fewer than one batch; set training.batch_size to {len(shards)} at most"
        )
    try:
        data_order(shards, config.data, seed=config.seed, batch_size=batch_size)
    except ValueError as error:
        raise ConfigError(f"data.mix: {error}") from error


def _check_document_frequency(config: RunConfig) -> None:
    table = config.data.document_frequency
    if getattr(config.objective, "idf", None) == "offline" and table is None:
        raise ValueError("objective.idf is offline: set data.document_frequency, made with `vlp docfreq`")
    if table is not None:
        counted, used = DocumentFrequency.read(table).tokenizer, config.tokenizer.build().identity
        if counted != used:
            raise ValueError(
                f"{table} counts the tokens of another tokenizer, or another context length "
                f"({counted}, the run's is {used})"
            )
