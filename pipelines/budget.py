"""The steps that a run's budget pays for."""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from vlp.encoders import ImageEncoderConfig
from vlp.flops import step_flops
from vlp.masking import MaskStrategy
from vlp.objectives import ObjectiveConfig, Vocabulary
from vlp.tokenizers import TokenizerConfig

if TYPE_CHECKING:
    from pipelines.run_config import RunConfig


def affordable_steps(run: "RunConfig") -> int:
    """Steps that the budget of a run pays for, tuning excluded.

    Raises:
        ValueError: not even one; or the step cannot be counted, or its pace was not measured.
    """
    budget, batch_size = run.training.budget, run.training.batch_size
    assert budget is not None
    if budget.needs_pace:
        raise ValueError("budget.seconds pays for a number of steps that is known once training starts")
    if budget.seconds_per_step is not None:
        return budget.num_steps(budget.seconds_per_step)
    if budget.measure == "samples":
        return budget.num_steps(batch_size)
    if budget.measure == "visible_tokens":
        return budget.num_steps(batch_size * visible_tokens(run))
    return budget.num_steps(_flops(run.objective, run.image_encoder, run.mask, run.tokenizer, batch_size))


def visible_tokens(run: "RunConfig") -> int:
    """Tokens that the encoders read of one pair, at most."""
    num_patches = run.image_encoder.num_patches
    patches = run.mask.num_visible(num_patches) if run.objective.drops_patches else num_patches
    return patches + run.objective.encodes_text * run.tokenizer.context_length


@lru_cache(maxsize=8)  # settings are made again and again of the same parts
def _flops(
    objective: ObjectiveConfig,
    image_encoder: ImageEncoderConfig,
    mask: MaskStrategy,
    tokenizer: TokenizerConfig,
    batch_size: int,
) -> int:
    built = tokenizer.build()
    vocabulary = Vocabulary(
        size=built.vocab_size,
        context_length=tokenizer.context_length,
        special_tokens=built.special_tokens,
        document_frequency=torch.zeros(built.vocab_size, dtype=torch.int64, device="meta"),
    )
    return step_flops(objective, image_encoder, mask, vocabulary=vocabulary, batch_size=batch_size)
