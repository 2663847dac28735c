"""Steps that would harm the weights: what they are told by, and what becomes of them."""

import math
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from vlp.core.config import Above, AtLeast, StrictConfig
from vlp.core.distributed import all_mean


@dataclass(frozen=True, kw_only=True)
class BadStepConfig(StrictConfig):
    """What becomes of a step whose loss or gradient norm is not finite, or is a spike."""

    action: Literal["stop", "skip"] = "stop"
    """`stop` ends the run; `skip` leaves weights and optimizer as they are and takes the next batch."""
    spike: Annotated[float, Above(1)] | None = None
    """Times the median of the last steps from which a loss or a gradient norm is a spike, such as 10; None
    lets any finite number pass."""
    window: Annotated[int, AtLeast(1)] = 100
    """Steps that the median is over; before so many were taken, nothing is a spike."""
    max_in_a_row: Annotated[int, AtLeast(1)] = 10
    """Steps that are skipped one after another before the run stops nevertheless."""
    num_saved: Annotated[int, AtLeast(0)] = 3
    """Skipped steps that are saved for `vlp replay`, the first ones; each takes the room of a checkpoint."""


class BadStepError(RuntimeError):
    """A step was bad, and the run is to stop at it."""


class Outcome(NamedTuple):
    """What decides whether the weights are changed, as numbers that all workers share."""

    loss: float
    """Of the global batch."""
    norm: float
    """Length of the gradient."""
    scale: float
    """By which the loss was multiplied in fp16; 1 otherwise."""

    @classmethod
    def ask(cls, loss: Tensor, norm: Tensor, scaler: GradScaler) -> "Outcome":
        """Wait for a step's gradient; the one time in a step that the device is asked. A collective.

        Args:
            loss: () this worker's.
            norm: () length of the gradient that all workers share.
        """
        scale = scaler.scale(torch.ones((), device=loss.device))
        return cls(*all_mean(torch.stack([loss.detach(), norm.detach(), scale])).tolist())

    @property
    def has_overflowed(self) -> bool:
        """Whether the gradient is not finite because of the scale alone, so that the next one is smaller."""
        return self.scale > 1 and math.isfinite(self.loss) and not math.isfinite(self.norm)


@dataclass
class StepHistory:
    """What the next step is compared with; a part of the state of a run, so that resuming is exact."""

    losses: list[float] = field(default_factory=list)
    """Of the last good steps, at most `window`."""
    norms: list[float] = field(default_factory=list)
    """Gradient norms of the same steps."""
    num_skipped: int = 0
    num_in_a_row: int = 0
    """Steps skipped since the last good one."""

    def judge(self, outcome: Outcome, config: BadStepConfig) -> str | None:
        """Why a step is bad, or None; then it counts among those that the next ones are compared with."""
        values = outcome.loss, outcome.norm
        for name, value, past in zip(("loss", "gradient norm"), values, self._past(), strict=True):
            if problem := _problem(name, value, past, config):
                self.num_skipped += 1
                self.num_in_a_row += 1
                return problem
        for value, past in zip(values, self._past(), strict=True):
            past.append(value)
            del past[: -config.window]
        self.num_in_a_row = 0
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)

    def _past(self) -> tuple[list[float], list[float]]:
        return self.losses, self.norms


def _problem(name: str, value: float, past: list[float], config: BadStepConfig) -> str | None:
    if not math.isfinite(value):
        return f"the {name} is {value}"
    if config.spike is None or len(past) < config.window:
        return None
    usual = median(past)
    if value <= config.spike * usual:
        return None
    return (
        f"the {name} is {value:.4g}, more than {config.spike:g} times {usual:.4g}, the median of the last "
        f"{config.window} steps"
    )
