"""Steps that would harm the weights: what they are told by, and what becomes of them."""

import math
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vlp.core.config import Above, AtLeast, StrictConfig
from vlp.core.distributed import all_mean


@dataclass(frozen=True, kw_only=True)
class BadStepConfig(StrictConfig):
    """What becomes of a step whose loss or gradient norm is not finite, or is a spike."""

    action: Literal["stop", "skip"] = "stop"
    """`stop` ends the run; `skip` leaves weights and optimizer as they are and takes the next batch. A run
    that is to stop does so at its next record (`machine.log_every_steps`) or checkpoint, as it would have at
    once: after the bad step nothing changes any more."""
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
    """What decided whether the weights were changed, as numbers that all workers share."""

    loss: float
    """Of the global batch."""
    norm: float
    """Length of the gradient."""
    scale: float
    """By which the loss was multiplied in fp16; 1 otherwise."""

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


class Watch:
    """Judges steps on the device that computes them, as `StepHistory` does where the numbers are known.

    After a bad step every other one counts as bad, too, until the device is asked: weights and optimizer are
    then as they were before it.
    """

    def __init__(self, history: StepHistory, config: BadStepConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self._outcomes: list[Tensor] = []
        self._is_sound = torch.ones((), dtype=torch.bool, device=device)
        past = torch.tensor([history.losses, history.norms], dtype=torch.float64, device=device)
        past = past[:, -config.window :]
        self._count = torch.full((), past.shape[1], device=device)
        self._past = F.pad(past, (config.window - past.shape[1], 0))

    def judge(self, loss: Tensor, norm: Tensor, scale: Tensor) -> Tensor:
        """Whether a step may change the weights: () bool. A collective.

        Args:
            loss: () this worker's.
            norm: () length of the gradient that all workers share.
            scale: () by which the loss was multiplied in fp16; 1 otherwise.
        """
        outcome = all_mean(torch.stack([loss.detach(), norm.detach(), scale]))
        self._outcomes.append(outcome)
        (is_loss_finite, is_norm_finite), has_scale = outcome[:2].isfinite(), outcome[2] > 1
        is_good = self._is_sound & is_loss_finite & is_norm_finite
        has_overflowed = self._is_sound & is_loss_finite & ~is_norm_finite & has_scale
        if self.config.spike is not None:
            is_good = is_good & ~self._is_spike(outcome[:2].double(), self.config.spike)
            self._remember(outcome[:2].double(), is_good)
        self._is_sound = is_good | has_overflowed
        return is_good

    def ask(self) -> list[Outcome]:
        """The steps since the last time; the one moment at which the device is waited for."""
        outcomes = torch.stack(self._outcomes).tolist() if self._outcomes else []
        self._outcomes.clear()
        self._is_sound = torch.ones((), dtype=torch.bool, device=self.device)
        return [Outcome(*values) for values in outcomes]

    def _is_spike(self, values: Tensor, spike: float) -> Tensor:
        window = self.config.window
        ordered = self._past.sort(dim=1).values
        usual = (ordered[:, (window - 1) // 2] + ordered[:, window // 2]) / 2
        return (self._count >= window) & (values > spike * usual).any()

    def _remember(self, values: Tensor, is_good: Tensor) -> None:
        moved = torch.cat([self._past[:, 1:], values[:, None]], dim=1)
        self._past = torch.where(is_good, moved, self._past)
        self._count = self._count + is_good


def _problem(name: str, value: float, past: list[float], config: BadStepConfig) -> str | None:
    if not math.isfinite(value):
        return f"the {name} is {value}"
    if config.spike is None or len(past) < config.window:
        return None
    usual = median(past[-config.window :])
    if value <= config.spike * usual:
        return None
    return (
        f"the {name} is {value:.4g}, more than {config.spike:g} times {usual:.4g}, the median of the last "
        f"{config.window} steps"
    )
