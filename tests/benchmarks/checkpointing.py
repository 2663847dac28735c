"""Training with a checkpoint every 50 steps, against the same steps without any.

python tests/benchmarks/checkpointing.py [--size demo vit_b16] [--runs 5]

A turn begins with a checkpoint and ends when it is on disk and some steps are done. What it takes longer than
those steps alone is what a checkpoint costs, and every 50 steps pay that once.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from harness import REPOSITORY, Result, report, seconds
from steps.arguments import per_device, step_options

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.checkpoints.store import CheckpointPlace, Retention
from pipelines.checkpoints.writer import CheckpointWriter
from pipelines.config.settings import build, read_layers
from pipelines.workflow.plan import LATER, PipelineConfig, Plan
from vlp.core.batch import Batch
from vlp.run import RunConfig
from vlp.training.cpu import fastest_matmul, prepare_cpu_training
from vlp.training.optim import build_optimizer
from vlp.training.step import forward, update

NAME = "checkpointing"
EVERY_STEPS = 50
WARM_UP_SAVES = 4
"""Until the memory of the copies and of the files has been used before."""


@dataclass(frozen=True)
class Size:
    """A run, and the steps of a turn: a checkpoint is on disk before they are done."""

    name: str
    run: Callable[[], RunConfig]
    steps: int


def demo() -> RunConfig:
    """CLIP as `make demo` trains it."""
    file = REPOSITORY / "conf" / "pipeline" / "demo.yaml"
    plan = Plan(build(PipelineConfig, read_layers([str(file)])))
    return plan.runs(LATER, LATER)[0]


def vit_b16() -> RunConfig:
    """CLIP on ViT-B/16, with a batch for a CPU."""
    file = REPOSITORY / "conf" / "run" / "clip.yaml"
    batch = {"training": {"batch_size": 8, "precision": "fp32"}}
    return build(RunConfig, read_layers([str(file)]).add(batch, "here"))


SIZES = {"demo": Size("demo's CLIP", demo, 10), "vit_b16": Size("ViT-B/16", vit_b16, 5)}


class Training:
    """A run in training on one batch, with the writer of its checkpoints."""

    def __init__(self, config: RunConfig, output: Path) -> None:
        self.config = config
        objective = config.build(config.vocabulary(config.tokenizer.build()))
        prepare_cpu_training(objective, matmul=fastest_matmul())
        optimizer = build_optimizer(objective, config.optimizer)
        self.state = TrainingState(objective, optimizer, None, config.mask)
        place = CheckpointPlace(output / "checkpoints", Retention(last=1), "benchmark")
        self.writer = CheckpointWriter(place, config)
        self.batch = _random_batch(config)

    def train(self, steps: int) -> None:
        """So many steps."""
        state, config = self.state, self.config
        for _ in range(steps):
            loss, _ = forward(state.objective, self.batch, config.resolved_training, step=0, seed=0)
            update(state.objective, loss, state.optimizer, lr=1e-4, max_norm=config.training.max_grad_norm)
            state.objective.after_update()
            state.step += 1

    def train_and_save(self, steps: int) -> None:
        """A checkpoint, and so many steps while it is written."""
        self.writer.save(self.state, {})
        self.train(steps)
        self.writer.wait()


def main() -> None:
    """Measure and report."""
    arguments = next(per_device(step_options(__doc__, sizes=list(SIZES))))
    torch.set_num_threads(arguments.threads)
    for name in arguments.size:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(SIZES[name], Path(folder), runs=arguments.runs)
            report(f"{NAME}_{name}", [result], arguments.results)


def measure(size: Size, folder: Path, *, runs: int) -> Result:
    """Images per second with checkpoints and without, in turns."""
    training = Training(size.run(), folder)
    for _ in range(WARM_UP_SAVES):
        training.train_and_save(1)
    ways = (training.train, training.train_and_save)
    turns = [[seconds(partial(way, size.steps)) for way in ways] for _ in range(runs)]
    images = EVERY_STEPS * training.config.training.batch_size
    plain = median(alone for alone, _ in turns) * EVERY_STEPS / size.steps
    costs = [saving - alone for alone, saving in turns]  # neighbours in time: a slow moment hits both
    return Result(
        what=f"{size.name}, batch {images // EVERY_STEPS}, a checkpoint every {EVERY_STEPS} steps",
        unit="images/s",
        ours=[images / (plain + cost) for cost in costs],
        peer=[images / plain] * runs,
        peer_name="no checkpoints",
        note=f"one costs {median(costs):.2f} s",
    )


def _random_batch(config: RunConfig) -> Batch:
    """Noise takes as long as photographs."""
    generator = torch.Generator().manual_seed(0)
    size, side = config.training.batch_size, config.image_encoder.image_size
    images = torch.randn(size, 3, side, side, generator=generator)
    tokenizer = config.tokenizer.build()
    tokens, lengths = tokenizer.encode(["a photograph of a dog that runs through the snow"] * size)
    return Batch(images, tokens, lengths)


if __name__ == "__main__":
    main()
