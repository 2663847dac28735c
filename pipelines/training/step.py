"""One step of a run: forward, backward, and the weights changed unless the step is a bad one."""

from torch import Tensor, nn

from pipelines.checkpoints.checkpoint import TrainingState
from pipelines.training.bad_steps import BadSteps, Finding
from pipelines.training.hooks import Metrics
from vlp.core.batch import Batch
from vlp.run import RunConfig
from vlp.training.bad_steps import Outcome
from vlp.training.step import backward, forward, take_step


class TrainingStep:
    """Takes the steps of a run.

    Args:
        model: the objective, wrapped for several workers.
        bad_steps: hears of every step that is not taken.
    """

    def __init__(self, config: RunConfig, model: nn.Module, bad_steps: BadSteps) -> None:
        self.config, self.model, self.bad_steps = config, model, bad_steps

    def __call__(self, state: TrainingState, batch: Batch) -> Metrics:
        """Take the next step; a collective."""
        config, step, mask = self.config, state.step, state.objective.mask
        buffers = state.changing_buffers
        before = [buffer.clone() for buffer in buffers]
        loss, metrics = forward(self.model, batch, config.resolved_training, step=step, seed=config.seed)
        norm = backward(self.model, loss, state.optimizer, state.scaler)
        lr = config.learning_rate(step)
        outcome = Outcome.ask(loss, norm, state.scaler)
        if outcome.has_overflowed:
            _put_back(buffers, before)
        elif problem := state.history.judge(outcome, config.training.on_bad_step):
            _put_back(buffers, before)
            self.bad_steps.handle(state, batch, Finding(problem, loss, norm))
        else:
            take_step(self.model, state.optimizer, norm, lr=lr, max_norm=config.training.max_grad_norm)
            state.objective.after_update()
            if state.ema:
                state.ema.update(state.objective, step)
        state.step += 1
        chosen = {"lr": lr, "skipped_steps": state.history.num_skipped}
        if state.scaler.is_enabled():
            chosen["loss_scale"] = outcome.scale
            state.scaler.update()
        chosen |= mask.state(step / config.num_masked_steps)
        return metrics | {"loss": loss, "grad_norm": norm} | chosen


def _put_back(buffers: list[Tensor], before: list[Tensor]) -> None:
    for buffer, former in zip(buffers, before, strict=True):
        buffer.copy_(former)
