"""What a training step leaves behind: metrics in the journal and a line in the terminal."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.tracking.journal import Journal
from pipelines.tracking.terminal import Progress
from pipelines.training.hints import Hints
from pipelines.training.hooks import Hook, Metrics
from vlp.core.batch import Batch
from vlp.core.distributed import all_mean, is_main, world_size
from vlp.data.quarantine import Quarantine
from vlp.run import RunConfig
from vlp.training.negatives import caption_metrics

SECTIONS = {
    **dict.fromkeys(("mask_ratio",), "view"),
    **dict.fromkeys(("lr", "grad_norm", "logit_scale", "loss_scale", "skipped_steps"), "weights"),
    **dict.fromkeys(("batch_time", "data_time", "num_workers", "peak_memory_gib"), "worker"),
    **dict.fromkeys(("samples_per_second", "visible_patches_per_second", "replaced_samples"), "worker"),
    **dict.fromkeys(("negatives", "duplicate_captions"), "worker"),
}
"""Of the charts, by metric; `train` has the loss, and all else that an objective says of a step."""


def peak_memory_gib(device: torch.device) -> float:
    """Memory of this worker so far, at most: what was allocated on its GPU, or its process without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class StepLog(Hook):
    """Rank 0 writes the metrics of a step to the journal and a line to the terminal.

    Args:
        every: steps between two records.
        quarantine: what of the data could not be read so far.
    """

    def __init__(
        self, run: RunConfig, journal: Journal, *, label: str, every: int, quarantine: Quarantine
    ) -> None:
        self.run, self.journal, self.label, self.every = run, journal, label, every
        self.quarantine = quarantine
        self.hints = Hints(run)
        self.progress = Progress(label, run.num_steps, "steps")
        self.clock = Clock()

    def is_due(self, done: int) -> bool:
        return done % self.every == 0 or done == self.run.num_steps

    def __call__(self, state: TrainingState, batch: Batch, metrics: Metrics) -> None:
        """Log the means over the workers; a collective."""
        values = _means(metrics | self._batch_metrics(batch), batch.images.device)
        values |= self.clock.read()
        values["samples_per_second"] = self.run.training.batch_size / values["batch_time"]
        visible = self.run.image_encoder.num_patches * (1 - values["mask_ratio"])
        values["visible_patches_per_second"] = values["samples_per_second"] * visible
        values["num_workers"] = world_size()
        values["peak_memory_gib"] = peak_memory_gib(batch.images.device)
        if is_main():
            # MLflow orders charts by name: the loss in `train` comes first, then `val`, then these.
            sections = SECTIONS | dict.fromkeys(self.run.mask.state(0.0), "view")
            named = {f"{sections.get(key, 'train')}/{key}": value for key, value in values.items()}
            self.journal.metrics(named, step=state.step)
            self._hint(state.step, values)
            self.progress.update(
                state.step, f"loss {values['loss']:.3f}  {values['samples_per_second']:,.0f} images/s"
            )

    def _batch_metrics(self, batch: Batch) -> Metrics:
        found: Metrics = {"replaced_samples": self.quarantine.num_replaced * world_size()}
        if not self.run.objective.encodes_text:
            return found
        return found | caption_metrics(batch, context_length=self.run.tokenizer.context_length)

    def _hint(self, done: int, values: dict[str, float]) -> None:
        for name, line in self.hints.look(done, values).items():
            print(f"[{self.label}] {line}", flush=True)
            self.journal.tags({f"hint.{name}": line})


def _means(metrics: Metrics, device: torch.device) -> dict[str, float]:
    """Means over the workers; one copy to the device and one back, however many there are. A collective."""
    tensors = {name: value.detach().float() for name, value in metrics.items() if isinstance(value, Tensor)}
    numbers = {name: float(value) for name, value in metrics.items() if not isinstance(value, Tensor)}
    values = torch.cat(
        [torch.stack(list(tensors.values())), torch.tensor(list(numbers.values()), device=device)]
    )
    means = dict(zip(tensors | numbers, all_mean(values).tolist(), strict=True))
    return {name: means[name] for name in metrics}


class Clock:
    """The time of steps, waiting for their batches included, and of nothing that is done between them."""

    def __init__(self) -> None:
        self._steps, self._waited, self._worked = 0, 0.0, 0.0

    def each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, timed; `step_done` ends the time of each."""
        self._start = time.perf_counter()
        for batch in batches:
            self._arrived = time.perf_counter()
            self._waited += self._arrived - self._start
            yield batch
            self._start = time.perf_counter()

    def step_done(self) -> None:
        """The step of the batch is over."""
        self._worked += time.perf_counter() - self._arrived
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Seconds per step since the last time, and those of them that were spent waiting for the loader."""
        times = {
            "batch_time": (self._waited + self._worked) / self._steps,
            "data_time": self._waited / self._steps,
        }
        self._steps, self._waited, self._worked = 0, 0.0, 0.0
        return times
