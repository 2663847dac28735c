"""What a step is charged depends on the method alone."""

import pytest

from vlp.contracts import settings
from vlp.encoders.vit import ViTConfig
from vlp.losses import in_parts
from vlp.masking.random import RandomMask
from vlp.objectives import OBJECTIVES, Vocabulary
from vlp.text_masking.none import NoTextMask
from vlp.training.flops import step_flops


def flops(objective: str) -> int:
    """Of a step of a small model."""
    return step_flops(
        OBJECTIVES[objective](**settings.OBJECTIVES[objective]),
        ViTConfig(image_size=32, patch_size=8, width=32, depth=2, num_heads=2),
        RandomMask(),
        text_mask=NoTextMask(),
        vocabulary=Vocabulary(60, 16),
        batch_size=12,
    )


@pytest.mark.parametrize("objective", ["contrastive", "captioner", "siglip2"])
def test_what_is_computed_twice_to_spare_memory_counts_once(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = flops(objective)
    monkeypatch.setattr(in_parts, "MAX_PRODUCTS", 40)
    assert flops(objective) == expected
