"""What a training step leaves behind: metrics in the journal and a line in the terminal."""

import resource
import sys
import time

import torch
from torch import Tensor

from pipelines.tracking.journal import Journal
from pipelines.tracking.terminal import Progress
from pipelines.training.hints import Hints
from vlp.core.distributed import all_mean, is_main, world_size
from vlp.run import RunConfig


def peak_memory_gib(device: torch.device) -> float:
    """Memory of this worker so far, at most: what was allocated on its GPU, or its process without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class StepLog:
    """Rank 0 writes the metrics of a step to the journal and a line to the terminal."""

    def __init__(self, config: RunConfig, journal: Journal) -> None:
        self.config, self.journal = config, journal
        self.hints = Hints(config)
        self.data_seconds = 0.0
        self.progress = Progress(f"pretrain {config.name}", config.num_steps, "steps")
        self.resume()

    def resume(self) -> None:
        """Start the clock: what was done since the last step is not training."""
        self.since = self.waiting_since = time.perf_counter()
        self.data_seconds = 0.0
        self.steps_timed = 0

    def batch_arrived(self) -> None:
        """The loader has delivered; the time since the last step was spent waiting."""
        self.data_seconds += time.perf_counter() - self.waiting_since
        self.steps_timed += 1

    def step_done(self) -> None:
        """The step is over; from here on, the loader is waited for."""
        self.waiting_since = time.perf_counter()

    def write(self, done: int, metrics: dict[str, Tensor]) -> None:
        """Log the means over the workers. A collective: every worker calls it."""
        means = all_mean(torch.stack([value.detach().float() for value in metrics.values()]))
        values = dict(zip(metrics, means.tolist(), strict=True))
        step_seconds = (time.perf_counter() - self.since) / self.steps_timed
        values["batch_time"] = step_seconds
        values["data_time"] = self.data_seconds / self.steps_timed
        values["samples_per_second"] = self.config.training.batch_size / step_seconds
        visible = self.config.image_encoder.num_patches * (1 - values["mask_ratio"])
        values["visible_patches_per_second"] = values["samples_per_second"] * visible
        values["num_workers"] = world_size()
        values["peak_memory_gib"] = peak_memory_gib(metrics["loss"].device)
        if is_main():
            self.journal.metrics({f"train/{key}": value for key, value in values.items()}, step=done)
            self._hint(done, values)
            self.progress.update(
                done, f"loss {values['loss']:.3f}  {values['samples_per_second']:,.0f} images/s"
            )
        self.resume()

    def _hint(self, done: int, values: dict[str, float]) -> None:
        for name, line in self.hints.look(done, values).items():
            print(f"[pretrain {self.config.name}] {line}", flush=True)
            self.journal.tags({f"hint.{name}": line})
