"""What would stop a run, or make it pointless, found before any worker starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import lcm

from pipelines.compute.cluster import check_gpus_here
from pipelines.config.errors import ConfigError, UserError, blaming
from pipelines.config.machine import MachineConfig
from pipelines.config.storage import check_storage
from pipelines.config.worker_counts import WorkerCounts
from vlp.data.loader import data_order
from vlp.run import RunConfig, validation_metric
from vlp.shards.shard_set import ShardSet
from vlp.tokenizers import Tokenizer


def check_machine(machine: MachineConfig) -> None:
    """Whether the machine has the GPUs, and the storage, that its settings promise.

    Raises:
        ConfigError: it does not.
    """
    check_gpus_here(machine, machine.num_gpus)
    check_storage(machine)


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
    together = config.objective.rows_together
    if torn := [count for count in counts if batch_size // count % together]:
        raise ConfigError(
            f"training.batch_size {batch_size} gives each of {torn[0]} workers {batch_size // torn[0]} "
            f"images, and objective {config.objective.name} mixes them {together} at a time; set "
            f"training.batch_size to a multiple of {together * torn[0]}, or objective.mixup and cutmix to 0"
        )
    share = batch_size // max(counts)
    parts = machine.memory.batch_parts
    if parts > share:
        raise ConfigError(
            f"machine.memory.batch_parts is {parts} and each of {max(counts)} workers has {share} of "
            f"the {batch_size} pairs of training.batch_size: fewer than parts; "
            f"set machine.memory.batch_parts to {share} at most"
        )
    saves_memory = parts > 1 or machine.memory.checkpoint_activations
    if saves_memory and config.image_encoder.mixes_images:
        raise ConfigError(
            f"machine.memory.{'batch_parts' if parts > 1 else 'checkpoint_activations'}: image_encoder "
            f"{config.image_encoder.label} has batch norms, whose statistics are of the whole batch, and "
            "encoding it in parts or twice changes them; leave it out, or choose an image_encoder without"
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


def check_captions(config: RunConfig, shards: ShardSet, tokenizer: Tokenizer) -> None:
    """Whether every caption names a class, where captions are read so.

    Raises:
        ConfigError: one does not; names it.
    """
    if config.tokenizer.names_classes:
        try:
            tokenizer.token_rows(shards.distinct_captions())
        except ValueError as error:
            raise ConfigError(
                f"data.shards: of the captions in {config.data.shards}, {error}; "
                "choose other shards, or the file of their classes as tokenizer.path"
            ) from error


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


def check_num_samples(config: RunConfig, shards: ShardSet) -> None:
    """Whether there are enough samples for a batch, of every set that is mixed.

    Raises:
        ConfigError: there are not.
    """
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
