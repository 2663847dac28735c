"""What holds for every registered masking strategy."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2
from torch import Generator, Tensor

from vlp.contracts.settings import MASKS
from vlp.encoders.patches import patchify, unpatchify
from vlp.encoders.vit import ViTConfig
from vlp.masking import STRATEGIES, MaskInputs, MaskStrategy, Slots, visible_slots
from vlp.masking.strategy import uniform_noise

B, N, P = 16, 64, 48


def cases() -> list[MaskStrategy]:
    return [STRATEGIES[name](**settings) for name in sorted(STRATEGIES) for settings in MASKS.get(name, [{}])]


@pytest.fixture(params=cases(), ids=lambda mask: f"{mask.name}")
def strategy(request: pytest.FixtureRequest) -> MaskStrategy:
    return request.param


@pytest.fixture
def patches() -> Tensor:
    """Patches that resemble their neighbours, as those of photographs do: (B, N, P)."""
    coarse = torch.randn(B, P, 3, 3, generator=seeded(0))
    smooth = F.interpolate(coarse, size=(8, 8), mode="bilinear")
    noise = torch.randn(B, P, 8, 8, generator=seeded(1))
    return (smooth + 0.3 * noise).flatten(2).transpose(1, 2).contiguous()


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def all_views(patches: Tensor) -> MaskInputs:
    """Inputs whose embedded patches and attention are functions of each image's patches."""
    tokens = patches[:, :, :24] * torch.linspace(0.5, 2, 24)
    return MaskInputs.of(patches, tokens=tokens, attention=patches[:, :, 0].softmax(dim=1))


def mask(strategy: MaskStrategy, patches: Tensor, seed: int = 0, progress: float = 0.0) -> Tensor:
    return strategy(all_views(patches), progress=progress, generator=seeded(seed))


def slots(strategy: MaskStrategy, masked: Tensor, patches: Tensor) -> Slots:
    noise = None if strategy.is_exact else uniform_noise(MaskInputs.of(patches), seeded(5))
    return visible_slots(masked, strategy.num_visible(N), noise)


def test_a_mask_says_of_every_patch_whether_it_is_hidden(strategy: MaskStrategy, patches: Tensor) -> None:
    for progress in (0.0, 0.5, 0.999):
        masked = mask(strategy, patches, progress=progress)
        assert masked.shape == (B, N)
        assert masked.dtype == torch.bool


def test_a_mask_looks_at_nothing_but_the_views_that_it_names(strategy: MaskStrategy, patches: Tensor) -> None:
    offered = all_views(patches)
    views = {view: (lambda view=view: getattr(offered, view)) for view in strategy.views}
    inputs = MaskInputs((B, N), patches.device, patches=lambda: patches, **views)
    for progress in (0.0, 0.5):
        masked = strategy(inputs, progress=progress, generator=seeded(0))
        assert torch.equal(masked, strategy(offered, progress=progress, generator=seeded(0)))


def test_the_generator_and_the_images_decide_the_mask(strategy: MaskStrategy, patches: Tensor) -> None:
    torch.manual_seed(1)
    first = mask(strategy, patches)
    torch.manual_seed(2)  # the global generator must not matter
    assert torch.equal(first, mask(strategy, patches.clone()))


def test_what_explains_a_mask_is_the_same_choice(strategy: MaskStrategy, patches: Tensor) -> None:
    """Anchors are hidden, and so is nothing of which a cluster is said that lies outside of all."""
    for progress in (0.0, 0.5):
        inputs = all_views(patches)
        choice = strategy.explained(inputs, progress=progress, generator=seeded(3))
        assert torch.equal(choice.masked, mask(strategy, patches, seed=3, progress=progress))
        if choice.anchors is not None:
            assert choice.masked.gather(1, choice.anchors).all()
        if choice.clusters is not None:
            assert choice.clusters[choice.masked].ge(0).all()


def test_a_mask_that_does_not_change_hides_alike_at_all_times(
    strategy: MaskStrategy, patches: Tensor
) -> None:
    times = [mask(strategy, patches, progress=progress) for progress in (0.0, 0.5, 0.999)]
    is_same = all(torch.equal(times[0], later) for later in times)
    assert is_same == (not strategy.is_changing)


def test_its_dials_are_settings_that_make_a_difference(strategy: MaskStrategy, patches: Tensor) -> None:
    for dial, setting in strategy.dials.items():
        assert dial in ("target_ratio", "anchor_ratio")
        turned = (replace(strategy, **{setting: ratio}) for ratio in (0.05, 0.45))
        ready = [
            one if one.is_calibrated else one.calibrated([all_views(patches)], seed=0).mask for one in turned
        ]
        assert not torch.equal(*(mask(one, patches) for one in ready))


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
        many = torch.cat([mask(strategy, patches, seed) for seed in range(8)])
        num_patterns = len(torch.unique(many, dim=0))  # few, if the grid has one of two colours
        assert num_patterns > 1
        assert len(torch.unique(masked, dim=0)) > min(B // 2, num_patterns - 1)
    else:
        assert strategy.num_visible(N) == N


def test_the_bound_on_visible_patches_lies_in_the_grid_for_any_grid(strategy: MaskStrategy) -> None:
    for side in (2, 4, 6, 8, 10, 14, 16, 24):
        assert 1 <= strategy.num_visible(side * side) <= side * side


def test_the_bound_is_met_at_some_time_in_training(strategy: MaskStrategy, patches: Tensor) -> None:
    """A lower bound would cut what the strategy chose to show, a higher one would train on padding."""
    shown = [(~mask(strategy, patches, progress=p)).sum(dim=1).max() for p in (0.0, 0.25, 0.5, 0.75, 0.999)]
    assert max(shown) >= strategy.num_visible(N)


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


def test_of_flat_images_the_top_is_hidden_no_more_than_the_bottom(strategy: MaskStrategy) -> None:
    """All patches score alike, so that nothing but chance may choose among them."""
    patches = torch.ones(1, 1, P).expand(400, N, P)
    masked = slots(strategy, mask(strategy, patches), patches).masked(N).float()
    top, bottom = masked.mean(dim=0).reshape(2, -1)
    spread = (masked[:, : N // 2].mean(dim=1) - masked[:, N // 2 :].mean(dim=1)).std() / 400**0.5
    assert (top.mean() - bottom.mean()).abs() <= 5 * spread
    assert (top - bottom.flip(0)).abs().max() < 0.2


def is_met(strategy: MaskStrategy, patches: Tensor) -> bool:
    """Whether every image shows as many patches as the bound says, early and late in the training."""
    times = [mask(strategy, patches, progress=progress) for progress in (0.0, 0.5, 0.999)]
    counts = torch.stack([(~masked).sum(dim=1) for masked in times])
    return bool(counts.eq(strategy.num_visible(patches.shape[1])).all())


def test_an_exact_strategy_fills_every_slot_of_every_image(strategy: MaskStrategy, patches: Tensor) -> None:
    if strategy.is_exact:
        assert is_met(strategy, patches)
        assert slots(strategy, mask(strategy, patches), patches).is_padding is None
    else:  # be it on a grid whose side is odd
        grids = (patches, patches[:, :49])
        assert not all(is_met(strategy, grid) for grid in grids), "this strategy could call itself exact"


def test_the_cut_keeps_each_visible_patch_equally_often(strategy: MaskStrategy, patches: Tensor) -> None:
    """Pearson's chi-square on the image that shows most; a fair cut fails one time in 10,000 seeds."""
    masked = mask(strategy, patches)
    fullest = masked[(~masked).sum(dim=1).argmax()]
    visible, V, draws = int((~fullest).sum()), strategy.num_visible(N), 4000
    if visible <= V:
        return
    noise = torch.rand(draws, N, generator=seeded(9))
    keep_indices, _ = visible_slots(fullest.expand(draws, -1), V, noise)
    kept = torch.bincount(keep_indices.flatten(), minlength=N)[~fullest]
    expected = draws * V / visible
    # Counts of a draw without replacement vary less than independent ones, by this factor.
    spread = (visible - V) / (visible - 1)
    statistic = ((kept - expected) ** 2 / expected).sum().item() / spread
    assert statistic < chi2.isf(1e-4, df=visible - 1)


@torch.no_grad()
def test_the_class_token_of_a_batch_is_that_of_each_image_alone_whatever_fills_the_slots(
    strategy: MaskStrategy,
) -> None:
    """The class token is never hidden, never counted, and sees the visible patches of its own image."""
    torch.manual_seed(0)
    vit = ViTConfig(image_size=64, patch_size=8, width=32, depth=2, num_heads=2).build().eval()
    images = torch.randn(6, 3, 64, 64, generator=seeded(0))
    inputs = vit.mask_inputs(images)
    masked = strategy(inputs, generator=seeded(1))
    noise = None if strategy.is_exact else uniform_noise(inputs, seeded(2))
    keep_indices, is_padding = visible_slots(masked, strategy.num_visible(N), noise)
    states = vit(images, Slots(keep_indices, is_padding))
    assert states.shape == (6, 1 + strategy.num_visible(N), 32)
    is_seen = torch.ones_like(keep_indices, dtype=torch.bool) if is_padding is None else ~is_padding
    hidden = torch.ones(6, N, dtype=torch.bool).scatter(1, keep_indices, ~is_seen)
    pixels = patchify(images, 8)
    pixels[hidden] = 100.0
    other = vit(unpatchify(pixels, 8), Slots(keep_indices, is_padding))
    torch.testing.assert_close(other[:, 0], states[:, 0])
    for image, state, keep, seen in zip(images, states, keep_indices, is_seen, strict=True):
        alone = vit(image[None], Slots(keep[seen][None], None))[0]
        torch.testing.assert_close(state[0], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state[1:][seen], alone[1:], atol=1e-5, rtol=1e-5)


def test_a_strategy_compiles_into_one_graph(strategy: MaskStrategy, patches: Tensor) -> None:
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def compiled(patches: Tensor, progress: float) -> Tensor:
        return strategy(all_views(patches), progress=progress, generator=None)

    torch.manual_seed(0)
    found = compiled(patches, 0.25)
    torch.manual_seed(0)
    assert torch.equal(found, strategy(all_views(patches), progress=0.25, generator=None))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_mask(strategy: MaskStrategy, patches: Tensor, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype):
        under_autocast = mask(strategy, patches)
    assert torch.equal(under_autocast, mask(strategy, patches))
