"""What holds for every registered masking strategy."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.masking import STRATEGIES, MaskInputs, MaskStrategy, Slots, visible_slots
from vlp.masking.strategy import uniform_noise

B, N, P = 16, 49, 48
SETTINGS = {"cluster": {"threshold": 0.3}}


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> MaskStrategy:
    return STRATEGIES[request.param](**SETTINGS.get(request.param, {}))


@pytest.fixture
def patches() -> Tensor:
    """Patches that resemble their neighbours, as those of photographs do: (B, N, P)."""
    coarse = torch.randn(B, P, 3, 3, generator=seeded(0))
    smooth = F.interpolate(coarse, size=(7, 7), mode="bilinear")
    noise = torch.randn(B, P, 7, 7, generator=seeded(1))
    return (smooth + 0.3 * noise).flatten(2).transpose(1, 2).contiguous()


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def mask(strategy: MaskStrategy, patches: Tensor, seed: int = 0, progress: float = 0.0) -> Tensor:
    return strategy(MaskInputs.of(patches), progress=progress, generator=seeded(seed))


def slots(strategy: MaskStrategy, masked: Tensor, patches: Tensor) -> Slots:
    noise = None if strategy.is_exact else uniform_noise(MaskInputs.of(patches), seeded(5))
    return visible_slots(masked, strategy.num_visible(N), noise)


def test_a_mask_says_of_every_patch_whether_it_is_hidden(strategy: MaskStrategy, patches: Tensor) -> None:
    for progress in (0.0, 0.5, 0.999):
        masked = mask(strategy, patches, progress=progress)
        assert masked.shape == (B, N)
        assert masked.dtype == torch.bool


def test_the_generator_and_the_images_decide_the_mask(strategy: MaskStrategy, patches: Tensor) -> None:
    torch.manual_seed(1)
    first = mask(strategy, patches)
    torch.manual_seed(2)  # the global generator must not matter
    assert torch.equal(first, mask(strategy, patches.clone()))


def test_the_patches_are_left_as_they_were(strategy: MaskStrategy, patches: Tensor) -> None:
    before = patches.clone()
    mask(strategy, patches)
    assert torch.equal(before, patches)


def test_an_image_is_masked_alike_whatever_the_other_images_show(
    strategy: MaskStrategy, patches: Tensor
) -> None:
    expected = mask(strategy, patches)
    for i in range(B):
        others = torch.randn(B, N, P, generator=seeded(100 + i))
        others[i] = patches[i]
        assert torch.equal(mask(strategy, others)[i], expected[i])


def test_images_are_masked_differently_by_a_strategy_that_masks(
    strategy: MaskStrategy, patches: Tensor
) -> None:
    masked = mask(strategy, patches)
    if masked.any():
        assert len(torch.unique(masked, dim=0)) > B // 2
    else:
        assert strategy.num_visible(N) == N


def test_the_bound_on_visible_patches_lies_in_the_grid_for_any_grid(strategy: MaskStrategy) -> None:
    for num_patches in (1, 2, 3, 10, 49, 100, 196, 256):
        assert 1 <= strategy.num_visible(num_patches) <= num_patches


def test_the_slots_are_distinct_visible_patches_in_image_order(
    strategy: MaskStrategy, patches: Tensor
) -> None:
    masked = mask(strategy, patches)
    keep_indices, is_padding = slots(strategy, masked, patches)
    assert keep_indices.shape == (B, strategy.num_visible(N))
    for i in range(B):
        kept = keep_indices[i] if is_padding is None else keep_indices[i][~is_padding[i]]
        visible = set((~masked[i]).nonzero().flatten().tolist())
        assert kept.tolist() == sorted(set(kept.tolist()))
        if visible:
            assert set(kept.tolist()) <= visible
            assert len(kept) == min(len(visible), strategy.num_visible(N))
        else:
            assert len(kept) == 1


def test_an_exact_strategy_fills_every_slot_of_every_image(strategy: MaskStrategy, patches: Tensor) -> None:
    masked = mask(strategy, patches)
    if strategy.is_exact:
        assert (~masked).sum(dim=1).tolist() == [strategy.num_visible(N)] * B
        assert slots(strategy, masked, patches).is_padding is None
    else:
        assert len(set((~masked).sum(dim=1).tolist())) > 1, "this strategy could call itself exact"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_mask(strategy: MaskStrategy, patches: Tensor, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype):
        under_autocast = mask(strategy, patches)
    assert torch.equal(under_autocast, mask(strategy, patches))
