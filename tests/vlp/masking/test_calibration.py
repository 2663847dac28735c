"""The threshold search meets its target, or says what can be met."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vlp.masking import MaskInputs
from vlp.masking.calibration import QUANTILES, calibrate, recalibrate, search
from vlp.masking.cluster import ClusterMask
from vlp.masking.random import RandomMask
from vlp.masking.schedule import Schedule
from vlp.masking.similarity import compare_to_anchors
from vlp.masking.strategy import uniform_noise


@pytest.fixture(scope="module")
def batches() -> list[MaskInputs]:
    """512 smooth images in two batches of unequal size."""
    generator = Generator().manual_seed(0)
    coarse = torch.randn(512, 48, 3, 3, generator=generator)
    smooth = F.interpolate(coarse, size=(7, 7), mode="bilinear")
    images = smooth + 0.2 * torch.randn(512, 48, 7, 7, generator=generator)
    patches = images.flatten(2).transpose(1, 2)
    return [MaskInputs.of(patches[:300]), MaskInputs.of(patches[300:])]


def similarities(mask: ClusterMask, batches: list[MaskInputs], *, seed: int, alpha: float = 0.0) -> Tensor:
    """Of all patches to the nearest of the anchors that a seed gives: (512, N)."""
    generator = Generator().manual_seed(seed)
    parts = []
    for inputs in batches:
        anchors = mask.draw_anchors(uniform_noise(inputs, generator))
        parts.append(
            compare_to_anchors(inputs, anchors, alphas=[alpha], pixel_norm=mask.pixel_norm).nearest(alpha)
        )
    return torch.cat(parts)


@pytest.mark.parametrize("target", [0.1, 0.3, 0.5, 0.8])
def test_the_calibrated_mask_hides_the_wanted_share_of_fresh_draws(
    batches: list[MaskInputs], target: float
) -> None:
    found = calibrate(ClusterMask(target_mask_ratio=target), batches, seed=1)
    assert found.mask_ratio == pytest.approx(target, abs=1e-3)
    fresh = [found.mask(b, generator=Generator().manual_seed(i)) for b in batches for i in range(9)]
    mean = torch.cat([masked.float().mean(dim=1) for masked in fresh])
    assert mean.mean().item() == pytest.approx(target, abs=5 * mean.std().item() / len(mean) ** 0.5 + 0.01)


def test_the_threshold_is_the_quantile_of_all_similarities(batches: list[MaskInputs]) -> None:
    mask = ClusterMask(target_mask_ratio=0.4)
    found = calibrate(mask, batches, seed=7)
    similarity = similarities(mask, batches, seed=7)
    descending = similarity.flatten().sort(descending=True).values
    wanted = round(0.4 * len(descending))
    assert isinstance(found.mask.threshold, float)
    assert descending[wanted + 25] < found.mask.threshold < descending[wanted - 25]


def test_the_report_describes_the_calibrated_images(batches: list[MaskInputs]) -> None:
    found = calibrate(ClusterMask(), batches, seed=3)
    generator = Generator().manual_seed(3)
    masked = torch.cat([found.mask(b, generator=generator) for b in batches])
    per_image = masked.float().mean(dim=1)
    assert found.mask_ratio == pytest.approx(per_image.mean().item(), abs=1e-6)
    expected = {f"mask_ratio_p{100 * q:.0f}": torch.quantile(per_image, q).item() for q in QUANTILES}
    assert found.quantiles == pytest.approx(expected, abs=1e-6)


def test_only_the_threshold_is_changed(batches: list[MaskInputs]) -> None:
    mask = ClusterMask(anchor_ratio=0.05, min_mask_ratio=0.3, target_mask_ratio=0.45)
    found = calibrate(mask, batches)
    assert found.mask == ClusterMask(
        anchor_ratio=0.05, min_mask_ratio=0.3, target_mask_ratio=0.45, threshold=found.mask.threshold
    )
    assert mask.threshold == "auto"


def test_a_seed_gives_one_threshold_and_another_seed_another(batches: list[MaskInputs]) -> None:
    thresholds = [calibrate(ClusterMask(), batches, seed=seed).mask.threshold for seed in (0, 0, 1)]
    assert thresholds[0] == thresholds[1] != thresholds[2]


def test_the_cut_that_follows_does_not_enter_the_calibration(batches: list[MaskInputs]) -> None:
    loose, tight = (
        calibrate(ClusterMask(min_mask_ratio=ratio, target_mask_ratio=0.5), batches) for ratio in (0.1, 0.9)
    )
    assert loose.mask.threshold == tight.mask.threshold


def test_flat_images_name_the_two_ratios_that_can_be_reached() -> None:
    flat = torch.randn(64, 1, 48, generator=Generator().manual_seed(0)).expand(-1, 49, -1)
    with pytest.raises(ValueError, match="cannot be met") as error:
        calibrate(ClusterMask(), [MaskInputs.of(flat)])
    low, high = map(float, re.findall(r"reaches only ([\d.]+) or ([\d.]+)", str(error.value))[0])
    assert low == pytest.approx(2 / 49, abs=1e-3)  # the anchors
    assert high == 1
    assert "anchors alone hide 0.041" in str(error.value)


def test_a_ratio_just_above_the_target_is_met_where_the_next_lower_one_is_far() -> None:
    """Half of 2,000 patches (and one) look alike, the rest like nothing: 0.5005 is within the tolerance."""
    patches = F.one_hot(torch.arange(2000), 2000).float()
    patches[:1001] = patches[0]
    found = calibrate(
        ClusterMask(anchor_ratio=0.0005, target_mask_ratio=0.5),
        [MaskInputs.of(patches[None])],
        seed=one_alike(),
    )
    assert found.mask_ratio == pytest.approx(0.5005, abs=1e-4)


def one_alike() -> int:
    """A seed whose only anchor is one of the first 1,001 patches of 2,000."""
    mask = ClusterMask(anchor_ratio=0.0005)
    noise = (torch.rand(1, 2000, generator=Generator().manual_seed(seed)) for seed in range(100))
    draws = (int(mask.draw_anchors(draw)) for draw in noise)
    return next(seed for seed, anchor in enumerate(draws) if anchor < 1001)


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_an_impossible_mask_ratio_is_named(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask_ratio"):
        RandomMask(mask_ratio=ratio)


@pytest.fixture(scope="module")
def seen(batches: list[MaskInputs]) -> list[MaskInputs]:
    """The same images with embeddings that see half of the pixels."""
    return [MaskInputs.of(inputs.patches, tokens=inputs.patches[:, :, ::2] + 0.5) for inputs in batches]


def mean_ratio(mask: ClusterMask, seen: list[MaskInputs], *, seed: int, progress: float) -> float:
    similarity = similarities(mask, seen, seed=seed, alpha=mask.alpha(progress))
    return (similarity > mask.threshold_at(progress)).float().mean().item()


def test_the_golden_threshold_after_the_floor(wave_patches: Tensor) -> None:
    """With six fixed anchors, 0.77359 is where less than half is hidden after a floor of 0.3 (G4)."""
    anchors = torch.tensor([[3, 50, 97, 120, 150, 190]]).expand(4, -1)
    rows = compare_to_anchors(MaskInputs.of(wave_patches), anchors, alphas=[0.0], pixel_norm=True)
    floored = ClusterMask(measure="floored", min_mask_ratio=0.3)
    found = search(floored, rows, 0.0)
    hidden = [int((rows.nearest(0.0) > r).sum(dim=1).clamp_min(59).sum()) for r in (found, 0.77358, 0.7736)]
    assert hidden == [392, 392, 391]
    raw = search(ClusterMask(min_mask_ratio=0.3), rows, 0.0)
    assert 0.765278 <= raw <= 0.765531


def test_the_table_of_a_mix_meets_the_target_whatever_alpha(seen: list[MaskInputs]) -> None:
    found = calibrate(ClusterMask(feature="mix"), seen, seed=2)
    for progress in (0.0, 0.1, 0.33, 0.5, 0.777, 0.999):
        assert mean_ratio(found.mask, seen, seed=2, progress=progress) == pytest.approx(0.5, abs=4e-3)
    assert found.threshold == found.mask.threshold_at(0.0)


def test_a_search_during_training_covers_what_is_left_of_it(seen: list[MaskInputs]) -> None:
    found = recalibrate(ClusterMask(feature="mix"), seen, progress=0.4, until=0.7, seed=2)
    assert isinstance(found.mask.threshold, tuple)
    assert (found.mask.threshold[0][0], found.mask.threshold[-1][0]) == (0.4, 0.7)
    assert found.mask_ratio == pytest.approx(0.5, abs=1e-3)
    for progress in (0.4, 0.55, 0.7):
        assert mean_ratio(found.mask, seen, seed=2, progress=progress) == pytest.approx(0.5, abs=4e-3)


def test_a_search_before_the_end_needs_no_table_where_nothing_changes(seen: list[MaskInputs]) -> None:
    found = recalibrate(ClusterMask(feature="embedding"), seen, progress=0.4, until=0.7, seed=2)
    assert found.mask.threshold == found.threshold


def test_a_search_during_training_comes_as_near_as_it_can() -> None:
    """All patches alike: with any threshold all are hidden, or the anchors alone."""
    flat = MaskInputs.of(torch.ones(8, 16, 12) * torch.linspace(-1, 1, 12))
    mask = ClusterMask(anchor_ratio=0.1, target_mask_ratio=0.3)
    with pytest.raises(ValueError, match="cannot be met"):
        calibrate(mask, [flat])
    found = recalibrate(mask, [flat], progress=0.5, until=1.0)
    assert found.mask_ratio == pytest.approx(2 / 16)


@pytest.mark.parametrize("shape", ["linear", "cosine", "power", "step"])
def test_a_progressive_target_is_met_all_the_way(seen: list[MaskInputs], shape: Any) -> None:
    target = Schedule(start=0.3, end=0.7, begin=0.21, finish=0.73, shape=shape)
    found = calibrate(ClusterMask(target_mask_ratio=target), seen, seed=2)
    for progress in (0.0, 0.21, 0.4, 0.55, 0.7, 0.7299, 0.73, 0.95):
        ratio = mean_ratio(found.mask, seen, seed=2, progress=progress)
        assert ratio == pytest.approx(target(progress), abs=8e-3)


def test_without_pixel_norm_the_threshold_is_searched_on_plain_pixels(batches: list[MaskInputs]) -> None:
    found = calibrate(ClusterMask(pixel_norm=False, target_mask_ratio=0.4), batches, seed=1)
    masked = [found.mask(b, generator=Generator().manual_seed(i)) for i, b in enumerate(batches)]
    assert torch.cat(masked).float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert found.threshold != calibrate(ClusterMask(target_mask_ratio=0.4), batches, seed=1).threshold


def test_embeddings_alone_need_one_threshold(seen: list[MaskInputs]) -> None:
    found = calibrate(ClusterMask(feature="embedding"), seen, seed=2)
    assert isinstance(found.mask.threshold, float)
    assert mean_ratio(found.mask, seen, seed=2, progress=0.7) == pytest.approx(0.5, abs=1e-3)
