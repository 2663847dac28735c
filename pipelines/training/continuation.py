"""A run that goes on from another one, further or on other data, as a new run whose parent it names."""

from pathlib import Path
from typing import NamedTuple

from pipelines.checkpoints.checkpoint import TRAINING, check_checkpoint, find_checkpoint, read_run, steps_done
from pipelines.config.errors import ConfigError
from pipelines.config.settings import flat_params
from vlp.run import RunConfig

STAYS = ("image_encoder", "tokenizer", "objective", "training.ema")
"""Settings that the weights, or what is saved with them, are made of."""


class Start(NamedTuple):
    """Where a run goes on."""

    checkpoint: Path
    """Of its parent."""
    parent: RunConfig
    step: int
    """Steps that the parent had done."""

    def told(self, run: RunConfig) -> str:
        """What it means for the run, in one line: its steps, and the learning rate before and after."""
        if run.needs_measuring or self.parent.needs_measuring:
            return f"goes on from {self.checkpoint}, which has done {self.step} steps"
        before = self.parent.learning_rate(max(0, self.step - 1))
        return (
            f"goes on from {self.checkpoint} at step {self.step} of {run.num_steps}; lr_schedule "
            f"{run.lr_schedule.name} is that of all {run.num_steps} steps: the learning rate was "
            f"{before:.3g}, and is {run.learning_rate(self.step):.3g} now"
        )


def find_start(folder: Path, run: RunConfig) -> Start:
    """The checkpoint that a run goes on from, with its weights, its optimizer and its step.

    Args:
        folder: of a checkpoint, or of a finished run, whose last one is taken.

    Raises:
        ConfigError: there is none, the run's weights are others, or it is no longer than its parent was.
    """
    checkpoint = find_checkpoint(folder).absolute()
    check_checkpoint(checkpoint)
    if not (checkpoint / TRAINING).is_file():
        raise ConfigError(
            f"--from: {checkpoint} has no {TRAINING}, the optimizer's state; begin anew with "
            f"init_from.path={folder} init_from.part=model"
        )
    parent, step = read_run(checkpoint), steps_done(checkpoint)
    if changes := _changes(parent, run):
        raise ConfigError(
            f"--from: {folder} was trained with other settings that its weights are made of: "
            f"{'; '.join(changes)}; set them as they were, or begin anew with init_from.path={folder}"
        )
    if not run.needs_measuring and run.num_steps <= step:
        raise ConfigError(
            f"--from: {folder} has done {step} steps, and the run has {run.num_steps}; raise "
            f"training.length, such as training.length.steps={2 * step}"
        )
    return Start(checkpoint, parent, step)


def _changes(parent: RunConfig, run: RunConfig) -> list[str]:
    """Settings that have to stay and do not, with both values."""
    former, now = flat_params(parent), flat_params(run)
    fixed = [f"optimizer.{name}" for name in run.optimizer.FIXED]
    has_to_stay = [key for key in sorted(former | now) if key.startswith(STAYS) or key in fixed]
    return [
        f"{key} was {former.get(key, 'not set')}, now {now.get(key, 'not set')}"
        for key in has_to_stay
        if former.get(key) != now.get(key)
    ]
