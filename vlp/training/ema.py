"""An exponential moving average of the weights."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from vlp.core.config import StrictConfig, Within
from vlp.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class EMAConfig(StrictConfig):
    """How the weights are averaged; the average is the model that is evaluated and exported."""

    decay: Annotated[float, Within(0, 1, "[)")] = 0.9999
    """Share of the old average that stays at each step; at first less, (1 + step) / (10 + step)."""
    chooses_masks: bool = False
    """Whether masks see attention and embeddings by the averaged weights, as in A-CLIP (arXiv:2212.08653)."""


class EMA:
    """A copy of a model whose weights follow those that are trained."""

    def __init__(self, objective: Objective, config: EMAConfig) -> None:
        self.config = config
        self.objective = deepcopy(objective).eval().requires_grad_(False)
        copies, buffers = self.objective.changing_buffers(), objective.changing_buffers()
        self._buffers = list(zip(copies, buffers, strict=True))
        if config.chooses_masks:
            objective.look = self.objective.image_encoder.mask_inputs

    @torch.no_grad()
    def update(self, objective: Objective, step: int, is_good: Tensor) -> None:
        """Take in the weights after a step that is good (() bool, on their device), and copy the buffers."""
        decay = min(self.config.decay, (1 + step) / (10 + step))
        share = is_good * (1 - decay)
        for average, weight in zip(self.objective.parameters(), objective.parameters(), strict=True):
            average.lerp_(weight, share)
        for copy, buffer in self._buffers:
            copy.copy_(buffer)
