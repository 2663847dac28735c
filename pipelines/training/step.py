"""One step of a run: forward, backward, and the weights changed unless the step is a bad one."""

from dataclasses import replace

import torch
from torch import nn

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.training.bad_steps import BadSteps, Finding
from pipelines.training.hooks import Metrics
from vlp.core.batch import Batch
from vlp.run import RunConfig
from vlp.training.bad_steps import Watch
from vlp.training.step import backward, forward, take_step


class TrainingStep:
    """Takes the steps of a run; whether one is bad is decided on the device, and asked later.

    Args:
        model: the objective, wrapped for several workers.
        watch: judges each step.
        bad_steps: hears of every step that is not taken.
    """

    def __init__(self, config: RunConfig, model: nn.Module, watch: Watch, bad_steps: BadSteps) -> None:
        self.config, self.model, self.watch, self.bad_steps = config, model, watch, bad_steps

    def __call__(self, state: TrainingState, batch: Batch) -> Metrics:
        """Take the next step; a collective."""
        config, step = self.config, state.step
        buffers = state.changing_buffers
        before = [buffer.clone() for buffer in buffers]
        loss, metrics = forward(self.model, batch, config.resolved_training, step=step, seed=config.seed)
        norm = backward(self.model, loss, state.optimizer, state.scaler)
        lr, max_norm = config.learning_rate(step), config.training.max_grad_norm
        scale = state.scaler.scale(torch.ones_like(norm))
        is_good = self.watch.judge(loss, norm, scale)
        take_step(self.model, state.optimizer, norm, lr=lr, max_norm=max_norm, is_good=is_good)
        state.objective.after_update()
        for buffer, former in zip(buffers, before, strict=True):
            buffer.copy_(buffer.where(is_good, former))
        if state.ema:
            state.ema.update(state.objective, step, is_good)
        state.step += 1
        if config.training.on_bad_step.action == "skip":  # and saved with the weights before it
            self.ask(state)
        chosen = {"lr": lr, "skipped_steps": state.history.num_skipped}
        if state.scaler.is_enabled():
            chosen["loss_scale"] = scale
            state.scaler.update()
        chosen |= state.mask.state(step / config.num_masked_steps)
        return metrics | {"loss": loss, "grad_norm": norm} | chosen

    def ask(self, state: TrainingState) -> None:
        """Wait for the steps since the last time, and say which of them were bad; a collective.

        Raises:
            BadStepError: the run is to stop.
        """
        outcomes = self.watch.ask()
        for step, outcome in enumerate(outcomes, start=state.step - len(outcomes)):
            if outcome.has_overflowed:
                continue
            if problem := state.history.judge(outcome, self.config.training.on_bad_step):
                self.bad_steps.handle(replace(state, step=step), Finding(problem, outcome))
