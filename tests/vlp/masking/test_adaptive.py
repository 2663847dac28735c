"""Cluster masking that hides much of simple images and little of complex ones, and the target in the mean."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import spearmanr
from torch import Generator, Tensor

from tests.paths import SHARED_DATA
from vlp.core.normalization import normalize
from vlp.encoders.patches import patchify
from vlp.masking import MaskInputs
from vlp.masking.adaptive import AdaptiveClusterMask, ranks
from vlp.masking.schedule import Schedule
from vlp.masking.strategy import uniform_noise

N = 49
NOISE = torch.linspace(0.02, 1.5, 600)
"""Of each image: how much every pixel differs from a smooth picture, in deviations of it."""


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> MaskInputs:
    """Smooth pictures, each noisier than the one before, with embeddings that see half of the pixels."""
    smooth = F.interpolate(torch.randn(600, 48, 3, 3, generator=seeded(0)), size=(7, 7), mode="bilinear")
    noisy = smooth + NOISE[:, None, None, None] * torch.randn(600, 48, 7, 7, generator=seeded(1))
    patches = noisy.flatten(2).transpose(1, 2)
    return MaskInputs.of(patches, tokens=patches[:, :, ::2] + 0.2)


def ready(mask: AdaptiveClusterMask, *inputs: MaskInputs) -> AdaptiveClusterMask:
    found = mask.calibrated(inputs, seed=1).mask
    assert isinstance(found, AdaptiveClusterMask)
    return found


def shares(mask: AdaptiveClusterMask, inputs: MaskInputs, *, seed: int = 5, progress: float = 0.0) -> Tensor:
    """Share that is hidden of each image."""
    return mask(inputs, generator=seeded(seed), progress=progress).float().mean(dim=1)


def hidden_by_numpy(mask: AdaptiveClusterMask, patches: Tensor, noise: Tensor) -> list[set[int]]:
    """The definition, image by image, in float64."""
    assert isinstance(mask.simplicity, tuple)
    (_, quantiles), *_ = mask.simplicity
    levels, found = np.linspace(0, 1, len(quantiles)), []
    for image, draw in zip(patches.double().numpy(), noise.numpy(), strict=True):
        anchors = np.argsort(-draw)[: mask.num_anchors(N)]
        nearest = np.corrcoef(image)[anchors].max(axis=0)
        rank = np.interp(nearest.mean(), quantiles, levels)
        target = mask.target_mask_ratio
        count = round((target + (2 * rank - 1) * mask.spread) * N)
        nearest[anchors] = 2
        found.append(set(np.argsort(-nearest)[:count].tolist()))
    return found


def test_it_hides_what_its_definition_says(images: MaskInputs) -> None:
    mask = ready(AdaptiveClusterMask(), images)
    masked = mask(images, generator=seeded(3))
    expected = hidden_by_numpy(mask, images.patches, uniform_noise(images, seeded(3)))
    found = [set(row.nonzero().flatten().tolist()) for row in masked]
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    assert same >= 598  # a product that lies between two counts may be rounded either way


@pytest.mark.parametrize("target", [0.1, 0.4, 0.5, 0.9])
@pytest.mark.parametrize("spread", [0.0, 0.2, 0.6])
def test_the_mean_meets_the_target_within_the_bounds(
    images: MaskInputs, target: float, spread: float
) -> None:
    """Where the spread would leave less than the anchors, or no patch, it is less on both sides."""
    calibration = AdaptiveClusterMask(target_mask_ratio=target, spread=spread).calibrated([images], seed=1)
    half_a_patch = 0.5 / N + 1e-6
    rounding = 2e-3 if spread else half_a_patch
    assert calibration.metrics["mask_ratio"] == pytest.approx(target, abs=rounding)
    mask = calibration.mask
    assert isinstance(mask, AdaptiveClusterMask)
    found = torch.stack([shares(mask, images, seed=seed) for seed in range(5)])
    assert found.mean().item() == pytest.approx(target, abs=rounding + 5 * found.std().item() / 600**0.5)
    assert found.max() <= min(target + spread + half_a_patch, 1 - 1 / N)
    assert found.min() >= max(target - spread - half_a_patch, mask.num_anchors(N) / N - 1e-6)
    assert found.min() == pytest.approx(1 - mask.num_visible(N) / N)


def test_simpler_images_hide_more(images: MaskInputs) -> None:
    found = shares(ready(AdaptiveClusterMask(), images), images)
    statistic: Any = spearmanr(NOISE, found)
    assert statistic.correlation < -0.75
    assert found[:100].mean() > 0.6
    assert found[-100:].mean() < 0.4


def test_each_image_hides_the_patches_that_look_most_like_an_anchor(images: MaskInputs) -> None:
    mask = ready(AdaptiveClusterMask(), images)
    choice = mask.explained(images, generator=seeded(3))
    assert choice.anchors is not None
    for image, anchors, hidden in zip(
        images.patches[::60], choice.anchors[::60], choice.masked[::60], strict=True
    ):
        nearest = torch.corrcoef(image.double())[anchors].amax(dim=0)
        assert hidden[anchors].all()
        assert nearest[hidden].min() >= nearest[~hidden].max() - 1e-6


def test_images_that_are_alike_hide_alike_and_the_budget_is_kept(images: MaskInputs) -> None:
    """Of half of the images all patches are one: they tie, and share what is theirs."""
    flat = torch.randn(600, 1, 48, generator=seeded(2)).expand(-1, N, -1)
    mask = ready(AdaptiveClusterMask(), images, MaskInputs.of(flat))
    hidden = torch.stack([shares(mask, MaskInputs.of(flat)), shares(mask, images)])
    assert hidden.mean().item() == pytest.approx(0.5, abs=0.5 / N)
    assert hidden[0].min() > hidden[1].quantile(0.95)


def test_the_rank_of_a_value_is_the_share_below_it_and_half_of_its_equals() -> None:
    values = torch.tensor([0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0])
    assert ranks(values, (1.0, 2.0, 2.0, 2.0, 3.0)).tolist() == pytest.approx([0, 0, 0.125, 0.5, 0.875, 1, 1])
    assert ranks(values, (2.0, 2.0)).tolist() == [0, 0, 0, 0.5, 1, 1, 1]


@pytest.mark.parametrize("feature", ["embedding", "mix"])
def test_it_is_calibrated_for_what_is_compared_at_the_time(images: MaskInputs, feature: Any) -> None:
    mask = ready(AdaptiveClusterMask(feature=feature), images)
    assert (len(mask.simplicity) > 1) == (feature == "mix")
    for progress in (0.0, 0.33, 0.99):
        assert shares(mask, images, progress=progress).mean().item() == pytest.approx(0.5, abs=0.02)
    later = replace(mask, simplicity="auto").recalibrated([images], progress=0.4, until=0.6, seed=1).mask
    assert isinstance(later, AdaptiveClusterMask)
    assert shares(later, images, progress=0.5).mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_progressive_target_is_met_all_the_way(images: MaskInputs) -> None:
    target = Schedule(start=0.3, end=0.8)
    mask = ready(AdaptiveClusterMask(target_mask_ratio=target), images)
    for progress in (0.0, 0.5, 0.9):
        found = shares(mask, images, progress=progress)
        assert found.mean().item() == pytest.approx(target(progress), abs=0.02)
        assert (1 - found).max() * N <= mask.num_visible(N)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"spread": 1.0}, "spread must be in"),
        ({"anchor_ratio": 0.5}, "target_mask_ratio must be above anchor_ratio"),
        ({"simplicity": ()}, "simplicity must be a table"),
        ({"simplicity": ((0.5, (0.0, 1.0)), (0.0, (0.0, 1.0)))}, "in order of progress"),
        ({"simplicity": ((0.0, (1.0, 0.0)),)}, "two quantiles, in order"),
        ({"simplicity": ((0.0, (0.5,)),)}, "two quantiles, in order"),
        ({"simplicity": ((0.0, (0.0, 1.0)), (1.0, (0.0, 0.5, 1.0)))}, "as many quantiles"),
    ],
)
def test_an_impossible_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AdaptiveClusterMask(**settings)


def test_a_mask_that_is_not_calibrated_says_so(images: MaskInputs) -> None:
    with pytest.raises(ValueError, match="simplicity is still auto: calibrate"):
        AdaptiveClusterMask()(images, generator=seeded(0))


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the photographs are not here")
def test_on_photographs_the_target_is_met_by_others_than_those_it_was_calibrated_on() -> None:
    rows = pq.read_table(SHARED_DATA / "flickr8k" / "dev.parquet", columns=["image"]).slice(0, 600)
    pixels = [
        torch.from_numpy(np.asarray(Image.open(io.BytesIO(one)).convert("RGB").resize((112, 112))).copy())
        for one in rows["image"].to_pylist()
    ]
    patches = patchify(normalize(torch.stack(pixels).permute(0, 3, 1, 2), "clip"), 16)
    seen, others = MaskInputs.of(patches[:300]), MaskInputs.of(patches[300:])
    mask, metrics = AdaptiveClusterMask().calibrated([seen], seed=1)
    assert isinstance(mask, AdaptiveClusterMask)
    assert metrics["mask_ratio"] == pytest.approx(0.5, abs=3e-3)
    found = shares(mask, others)
    assert found.mean().item() == pytest.approx(0.5, abs=0.03)  # the mean of 300 has a deviation of 0.007
    assert found.std() > 0.08
