"""Where and how the work runs: the settings under the key `machine`, which every command takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pipelines.config.schema import dotted_keys
from pipelines.config.settings import Layers, build, leaves, read_layers, to_dict
from pipelines.config.worker_counts import WorkerCounts
from vlp.core.config import AtLeast, StrictConfig
from vlp.core.matmul import Matmul
from vlp.shards.storage.address import AnyFolder
from vlp.shards.storage.cache import ShardCache
from vlp.shards.storage.folder import Folder
from vlp.shards.storage.local import LocalFolder


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(StrictConfig):
    """When checkpoints are written, and which of them stay."""

    every_steps: Annotated[int, AtLeast(1)] = 500
    """Steps from one checkpoint to the next."""
    keep: Annotated[int, AtLeast(1)] = 2
    """Newest checkpoints kept on disk."""
    keep_best: Annotated[int, AtLeast(0)] = 0
    """Best checkpoints kept beside them, by the validation metric."""
    keep_every_steps: Annotated[int, AtLeast(1)] | None = None
    """Those after multiples of this many steps are kept, too; a multiple of `every_steps`."""
    track: Literal["all", "best", "last", "none"] = "last"
    """Which checkpoints go to MLflow; `best` is by the validation metric, or the last without one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kept, saved = self.keep_every_steps, self.every_steps
        if kept is not None and kept % saved:
            raise ValueError(f"keep_every_steps must be a multiple of every_steps ({saved}), got {kept}")


@dataclass(frozen=True, kw_only=True)
class MemorySettings(StrictConfig):
    """What a training worker does to need less memory; takes time, changes no result."""

    batch_parts: Annotated[int, AtLeast(1)] = 1
    """Parts in which a training worker encodes its share of a batch, one after another, to need less memory
    for a second forward pass; the loss still sees the whole batch."""
    checkpoint_activations: bool = False
    """Compute each block's activations again in the backward pass instead of holding them."""


@dataclass(frozen=True, kw_only=True)
class RecoverySettings(StrictConfig):
    """How a run goes on while workers die, and nodes come and go."""

    max_failures: int = 3
    """Deaths of workers that a run survives."""
    hang_seconds: Annotated[float, AtLeast(1)] = 120.0
    """Seconds after which a worker that gives no sign of life is treated as dead."""
    resize_seconds: Annotated[float, AtLeast(0)] = 60.0
    """How often a run looks for room for more workers; it has them from its last checkpoint on."""


@dataclass(frozen=True, kw_only=True)
class MachineConfig(StrictConfig):
    """Where and how the work runs. Never changes a result."""

    storage: AnyFolder = LocalFolder(Path("results"))
    """Folder of all results: in a file system, on a cluster one that every node sees, or in an object store,
    such as s3://bucket/vlp, which any machine goes on from."""
    work: Path | None = None
    """Folder of this machine's disk where work is done before its results are copied to `storage`; None is
    `storage` itself, and where that is in an object store `results`."""
    ray_address: str | None = None
    """Running cluster to join (`auto` finds it); None starts Ray on this machine."""
    num_workers: int | tuple[int, ...] = 1
    """Training workers, or the least and the most of them, such as [2, 8]: as many as there is room for while
    nodes come and go. 0 trains in this process, without Ray."""
    use_gpu: bool = False
    """Give each training worker a GPU."""
    validation_workers: Annotated[int, AtLeast(0)] = 0
    """Ray tasks, each with the CPUs and GPU of a training worker, that measure checkpoints during training
    (`evaluation.every_steps`); 0 measures in the training worker, which waits."""
    cpus_per_worker: Annotated[int, AtLeast(1)] = 1
    """CPUs that Ray sets aside for each training worker."""
    loader_workers: Annotated[int, AtLeast(0)] = 0
    """Processes that decode images, per training worker."""
    data_workers: Annotated[int, AtLeast(0)] = 2
    """Ray actors that download and count, each on one CPU; 0 has processes of this machine do so, one per CPU
    core, without Ray."""
    tracking_uri: str | None = None
    """MLflow server; None is a SQLite store in the work folder."""
    tracking: tuple[Literal["mlflow", "tensorboard", "wandb"], ...] = ("mlflow",)
    """What experiments are written for: MLflow, which holds everything, and perhaps TensorBoard or Weights &
    Biases too, in folders `tensorboard` and `wandb` of the work folder."""
    matmul: Matmul | None = None
    """What multiplies float32 matrices where training is on a CPU, which decides the last bits of its result;
    None is what is fastest on the CPU where the run begins, and stays with it wherever it goes on."""
    compile: bool = False
    """Compile the encoders' blocks before the first step, which takes a minute or so; for GPUs."""
    log_every_steps: Annotated[int, AtLeast(1)] = 10
    """Steps from one record of the loss and other metrics to the next."""
    cache: ShardCache | None = None
    """Local copies of shards that lie on a slow folder; None reads them where they lie."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """When checkpoints are written, and which stay."""
    memory: MemorySettings = MemorySettings()
    """What needs less memory, and more time."""
    recovery: RecoverySettings = RecoverySettings()
    """How a run goes on while workers die, and nodes come and go."""

    def __post_init__(self) -> None:
        super().__post_init__()
        WorkerCounts.of(self.num_workers)
        if "mlflow" not in self.tracking:
            raise ValueError(
                f"tracking is {list(self.tracking)}; mlflow, which holds everything, has to be in it"
            )
        if self.validation_workers and not self.worker_counts.most:
            raise ValueError(
                f"validation_workers is {self.validation_workers} and num_workers 0, which trains without "
                "Ray; set validation_workers to 0, or num_workers to at least 1"
            )

    @property
    def worker_counts(self) -> WorkerCounts:
        """How many workers training may have."""
        return WorkerCounts.of(self.num_workers)

    @property
    def num_gpus(self) -> int:
        """GPUs that training needs at once, at least."""
        return (min(self.worker_counts) + self.validation_workers) * self.use_gpu

    @property
    def work_folder(self) -> Path:
        """Where work is done on this machine."""
        return self.work or self.storage.local_path or Path("results")

    def published(self, folder: Path) -> Folder | None:
        """The place in the storage of a folder of the work folder; None where it is that place itself, or is
        none of the work folder's."""
        work, storage = self.work_folder.absolute(), self.storage.absolute()
        folder = folder.absolute()
        if storage == LocalFolder(work) or not folder.is_relative_to(work):
            return None
        return storage if folder == work else storage / folder.relative_to(work).as_posix()

    def absolute(self) -> "MachineConfig":
        """The same for a process that works in another folder."""
        return replace(self, storage=self.storage.absolute(), work=self.work_folder.absolute())

    def in_storage(self, folder: Path) -> Folder:
        """A folder of the work folder where it lies for all machines."""
        return self.published(folder) or LocalFolder(folder)

    @property
    def shard_cache(self) -> ShardCache | None:
        """`cache`, or one in the work folder where the storage is no file system."""
        if self.cache is not None or self.storage.local_path is not None:
            return self.cache
        return ShardCache(folder=self.work_folder.absolute() / "cache")

    @property
    def mlflow_uri(self) -> str:
        """Where experiments are tracked."""
        return self.tracking_uri or f"sqlite:///{(self.work_folder / 'mlflow.db').absolute()}"


def machine_params(machine: MachineConfig) -> dict[str, Any]:
    """One dotted key per setting, as they are written: {"machine.num_workers": 2, ...}."""
    return dict(leaves({"machine": to_dict(machine)}))


def read_settings(arguments: Sequence[str]) -> tuple[Layers, MachineConfig]:
    """Settings from files and overrides, as `read_layers`: a command's own, and those under `machine`."""
    layers = read_layers(arguments)
    own = replace(
        layers.without("machine"), others=tuple(f"machine.{key}" for key in dotted_keys(MachineConfig, {}))
    )
    return own, build(MachineConfig, layers.below("machine"), prefix="machine")
