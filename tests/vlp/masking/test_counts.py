"""What settings of a mask come to, in patches."""

from dataclasses import replace

import pytest
import torch
from torch import Generator

from vlp.masking import MaskStrategy
from vlp.masking.attention import AttentionMask
from vlp.masking.block import BlockMask
from vlp.masking.cluster import ClusterMask
from vlp.masking.grid import GridMask
from vlp.masking.importance import ImportanceMask
from vlp.masking.kmeans import KMeansMask
from vlp.masking.random import RandomMask
from vlp.masking.schedule import Schedule
from vlp.masking.square import SquareMask
from vlp.masking.strategy import MaskInputs

N = 64
PAIRS = [
    (RandomMask(mask_ratio=0.505), {"mask_ratio": 0.51}, {"mask_ratio": 0.53}),
    (AttentionMask(mask_ratio=0.505), {"mask_ratio": 0.51}, {"mask_ratio": 0.53}),
    (GridMask(mask_ratio=0.5), {"mask_ratio": 0.49}, {"mask_ratio": 0.4}),
    (SquareMask(mask_ratio=0.25), {"mask_ratio": 0.26}, {"mask_ratio": 0.4}),
    (BlockMask(mask_ratio=0.5), {"mask_ratio": 0.503}, {"mask_ratio": 0.53}),
    (ImportanceMask(mask_ratio=0.505), {"mask_ratio": 0.51}, {"mask_ratio": 0.53}),
    (KMeansMask(min_mask_ratio=0.505), {"min_mask_ratio": 0.51}, {"min_mask_ratio": 0.53}),
    (ClusterMask(threshold=0.9, anchor_ratio=0.021), {"anchor_ratio": 0.0226}, {"anchor_ratio": 0.05}),
    (
        ClusterMask(threshold="per_image", target_mask_ratio=0.505),
        {"target_mask_ratio": 0.51},
        {"target_mask_ratio": 0.6},
    ),
]


def masks(strategy: MaskStrategy) -> torch.Tensor:
    patches = torch.randn(8, N, 48, generator=Generator().manual_seed(0))
    inputs = MaskInputs.of(patches, attention=patches.mean(dim=2))
    hidden = strategy(inputs, generator=Generator().manual_seed(1))
    return torch.cat([hidden.sum(dim=1), torch.tensor([strategy.num_visible(N)]), hidden.flatten()])


@pytest.mark.parametrize(("strategy", "alike", "other"), PAIRS, ids=lambda x: getattr(x, "name", ""))
def test_masks_are_alike_where_their_shares_come_to_the_same_patches(
    strategy: MaskStrategy, alike: dict[str, float], other: dict[str, float]
) -> None:
    same, different = replace(strategy, **alike), replace(strategy, **other)
    assert strategy.counts(N) == same.counts(N) != different.counts(N)
    assert torch.equal(masks(strategy), masks(same))
    assert not torch.equal(masks(strategy), masks(different))


def test_a_ratio_that_changes_comes_to_no_one_number() -> None:
    assert RandomMask(mask_ratio=Schedule(start=0.1, end=0.5)).counts(N) == {}


def test_a_setting_that_decides_nothing_is_named() -> None:
    rgb = ClusterMask(threshold=0.9)
    assert {"alpha_power", "target_mask_ratio"} <= rgb.unused
    assert "alpha_power" not in replace(rgb, feature="mix").unused
    assert torch.equal(masks(rgb), masks(replace(rgb, alpha_power=3.0, target_mask_ratio=0.7)))
