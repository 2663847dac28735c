"""Cluster masking, against the numbers of the released code (arXiv:2405.08815) and its invariances."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from vlp.core.normalization import MEAN_STD
from vlp.encoders.patches import patchify
from vlp.masking import MaskInputs, visible_slots
from vlp.masking.cluster import ClusterMask
from vlp.masking.random import RandomMask
from vlp.masking.similarity import compare_to_anchors, standardize_patches
from vlp.masking.strategy import uniform_noise

ANCHORS = torch.tensor([[3, 50, 97, 120, 150, 190]]).expand(4, -1)


def nearest(
    patches: Tensor,
    anchors: Tensor,
    *,
    tokens: Tensor | None = None,
    alpha: float = 0.0,
    pixel_norm: bool = True,
) -> Tensor:
    """Similarity of each patch to its image's nearest anchor, 1 for the anchors: (B, N)."""
    inputs = MaskInputs.of(patches, tokens=tokens)
    rows = compare_to_anchors(inputs, anchors, alphas=[alpha], pixel_norm=pixel_norm)
    return rows.nearest(alpha).clamp_max(1)


def pearson(patches: Tensor) -> Tensor:
    """Correlation of every two patches of an image, by the textbook: (B, N, P) -> (B, N, N)."""
    return torch.stack([torch.corrcoef(image.double()) for image in patches])


def test_the_golden_images_and_patches_are_those_of_the_released_code(
    waves: Tensor, wave_patches: Tensor
) -> None:
    assert waves.double().sum().item() == pytest.approx(8305.156335431611, rel=1e-9)
    assert waves[0, 0, 0, :3].tolist() == pytest.approx([0.041987654, 0.070930116, 0.099775717], rel=1e-6)
    assert waves[3, 2, 223, 223].item() == pytest.approx(-0.98815727, rel=1e-6)
    assert wave_patches.shape == (4, 196, 768)
    first = [0.04198765382170677, 0.05497227609157562, 0.06794760376214981, 0.070930115878582]
    assert wave_patches[0, 0, :4].tolist() == pytest.approx(first, rel=1e-6)
    assert wave_patches[1, 17, 100].item() == pytest.approx(0.048979502, rel=1e-6)
    assert wave_patches[2, 195, 767].item() == pytest.approx(0.69851053, rel=1e-6)


@pytest.mark.parametrize(
    ("pixel_norm", "golden"),
    [
        (True, [0.97585100, -0.22973365, 0.47912523, 0.00570913, 0.21224229]),
        (False, [0.97014195, -0.52426219, 0.46881706, 0.00459659, 0.17995106]),
    ],
)
def test_similarities_are_those_of_the_released_code(
    wave_patches: Tensor, pixel_norm: bool, golden: list[float]
) -> None:
    rows = [
        nearest(wave_patches, torch.full((4, 1), anchor), pixel_norm=pixel_norm) for anchor in range(196)
    ]  # each anchor alone: row by row, the whole matrix
    S = torch.stack(rows, dim=1)
    found = [S[0, 0, 1], S[0, 0, 100], S[1, 17, 195], S.mean(), (S > 0.5).float().mean()]
    assert torch.stack(found).tolist() == pytest.approx(golden, abs=1e-5)


@pytest.mark.parametrize(
    ("pixel_norm", "threshold", "hidden"),
    [
        (True, 0.3, [194, 188, 180, 183]),
        (True, 0.5, [174, 173, 161, 128]),
        (True, 0.68, [143, 143, 128, 74]),
        (True, 0.9, [53, 66, 47, 19]),
        (False, 0.3, [187, 168, 158, 167]),
        (False, 0.5, [158, 146, 131, 134]),
        (False, 0.68, [131, 120, 92, 89]),
        (False, 0.9, [53, 55, 21, 29]),
    ],
)
def test_fixed_anchors_hide_as_many_patches_as_in_the_released_code(
    wave_patches: Tensor, pixel_norm: bool, threshold: float, hidden: list[int]
) -> None:
    masked = nearest(wave_patches, ANCHORS, pixel_norm=pixel_norm) > threshold
    assert masked.sum(dim=1).tolist() == hidden


def test_the_mask_compares_plain_pixels_where_it_is_told_to(wave_patches: Tensor) -> None:
    inputs = MaskInputs.of(wave_patches)
    mask = ClusterMask(threshold=0.5, pixel_norm=False)
    anchors = mask.draw_anchors(uniform_noise(inputs, Generator().manual_seed(0)))
    expected = nearest(wave_patches, anchors, pixel_norm=False) > 0.5
    assert torch.equal(mask(inputs, generator=Generator().manual_seed(0)), expected)
    assert not torch.equal(expected, nearest(wave_patches, anchors) > 0.5)


def test_half_of_the_patches_are_hidden_exactly_within_the_golden_interval(wave_patches: Tensor) -> None:
    similarity = nearest(wave_patches, ANCHORS)
    hidden = [int((similarity > r).sum()) for r in (0.765277, 0.765279, 0.765530, 0.765531)]
    assert hidden[0] > 392
    assert hidden[1:3] == [392, 392]
    assert hidden[3] < 392


def test_the_nearest_anchor_is_the_greatest_pearson_correlation(wave_patches: Tensor) -> None:
    anchors = torch.rand(4, 196, generator=Generator().manual_seed(0)).topk(6, dim=1).indices
    expected = torch.stack(
        [S[rows].amax(dim=0) for S, rows in zip(pearson(wave_patches), anchors, strict=True)]
    )
    found = nearest(wave_patches, anchors)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_a_mask_is_its_anchors_and_all_patches_that_resemble_one(wave_patches: Tensor) -> None:
    mask = ClusterMask(anchor_ratio=0.03, threshold=0.6)
    inputs = MaskInputs.of(wave_patches)
    anchors = mask.draw_anchors(uniform_noise(inputs, Generator().manual_seed(3)))
    masked = mask(inputs, generator=Generator().manual_seed(3))
    for S, rows, hidden in zip(pearson(wave_patches), anchors.tolist(), masked, strict=True):
        expected = {j for j in range(196) if any(S[i, j] > 0.6 for i in rows)} | set(rows)
        assert len(rows) == len(set(rows)) == 6
        assert set(hidden.nonzero().flatten().tolist()) == expected


def test_brightness_and_contrast_change_no_similarity(wave_patches: Tensor) -> None:
    before = nearest(wave_patches, ANCHORS)
    for contrast, brightness in ((1.0, 5.0), (0.25, 0.0), (3.0, -2.0)):
        after = nearest(contrast * wave_patches + brightness, ANCHORS)
        torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_a_higher_threshold_hides_a_part_of_what_a_lower_one_hides(wave_patches: Tensor) -> None:
    masks = [
        ClusterMask(threshold=r)(MaskInputs.of(wave_patches), generator=Generator().manual_seed(0))
        for r in torch.linspace(-0.9, 0.99, 20).tolist()
    ]
    for lower, higher in pairwise(masks):
        assert not (higher & ~lower).any()
    assert masks[0].sum() > masks[-1].sum()


def test_anchors_are_hidden_even_where_a_patch_is_flat(wave_patches: Tensor) -> None:
    flat = torch.zeros_like(wave_patches)
    mask = ClusterMask(threshold=0.99)
    anchors = mask.draw_anchors(uniform_noise(MaskInputs.of(flat), Generator().manual_seed(0)))
    masked = mask(MaskInputs.of(flat), generator=Generator().manual_seed(0))
    assert masked.gather(1, anchors).all()
    assert masked.sum(dim=1).tolist() == [6] * 4


COLORS = {
    "white": (1, 1, 1),
    "black": (0, 0, 0),
    "gray": (0.5, 0.5, 0.5),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
}


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("white", "black", 0.826),
        ("white", "gray", 0.934),
        ("black", "gray", 0.973),
        ("black", "blue", 0.994),
        ("white", "red", -0.923),
        ("red", "green", -0.615),
        ("blue", "yellow", -0.999),
        ("gray", "blue", 0.942),
        ("green", "yellow", 0.468),
        ("red", "yellow", 0.409),
    ],
)
def test_flat_colours_are_as_similar_as_by_the_released_code(one: str, other: str, similarity: float) -> None:
    """The normalization of the images leaves a pattern of the channels, by which flat patches compare."""
    flat = torch.tensor([COLORS[one], COLORS[other]])[:, :, None, None].expand(-1, -1, 16, 16)
    mean, std = (torch.tensor(values)[:, None, None] for values in MEAN_STD["clip"])
    patches = patchify((flat - mean) / std, 16).transpose(0, 1)
    found = nearest(patches, torch.zeros(1, 1, dtype=torch.int64))
    assert found[0, 1].item() == pytest.approx(similarity, abs=6e-4)


def test_a_mask_that_hides_everything_still_shows_one_patch() -> None:
    patches = torch.randn(8, 196, 48, generator=Generator().manual_seed(0))
    mask = ClusterMask(anchor_ratio=1 / 196, threshold=-1.0)
    masked = mask(MaskInputs.of(patches), generator=Generator().manual_seed(0))
    assert masked.all()
    noise = torch.rand(8, 196, generator=Generator().manual_seed(1))
    is_padding = visible_slots(masked, mask.num_visible(196), noise).is_padding
    assert is_padding is not None
    assert (~is_padding).sum(dim=1).tolist() == [1] * 8


def test_the_highest_threshold_and_the_cut_are_random_masking_up_to_the_anchors() -> None:
    patches = torch.randn(3000, 16, 48, generator=Generator().manual_seed(0))
    mask = ClusterMask(anchor_ratio=1 / 16, threshold=1.0, min_mask_ratio=0.5)
    masked = mask(MaskInputs.of(patches), generator=Generator().manual_seed(0))
    noise = torch.rand(3000, 16, generator=Generator().manual_seed(1))
    slots = visible_slots(masked, mask.num_visible(16), noise)
    assert slots.keep_indices.shape == (3000, RandomMask(mask_ratio=0.5).num_visible(16))
    assert slots.is_padding is not None
    assert not slots.is_padding.any()
    share = slots.keep_indices.flatten().bincount(minlength=16) / 3000
    assert (share - 0.5).abs().max() < 5 * (0.25 / 3000) ** 0.5


def test_the_highest_threshold_hides_the_anchors_alone() -> None:
    patches = torch.randn(8, 196, 48, generator=Generator().manual_seed(0))
    masked = ClusterMask(threshold=1.0)(MaskInputs.of(patches), generator=Generator().manual_seed(0))
    assert masked.sum(dim=1).tolist() == [6] * 8


def test_every_patch_is_an_anchor_equally_often() -> None:
    noise = torch.rand(20_000, 16, generator=Generator().manual_seed(0))
    anchors = ClusterMask(anchor_ratio=0.2, threshold=0.5).draw_anchors(noise)
    share = torch.bincount(anchors.flatten(), minlength=16) / 20_000
    assert anchors.shape == (20_000, 4)
    assert (share - 4 / 16).abs().max() < 5 * (0.25 * 0.75 / 20_000) ** 0.5


def test_patches_are_standardized_by_mean_and_unbiased_deviation(wave_patches: Tensor) -> None:
    x = wave_patches[:2, :5].double().numpy()
    expected = (x - x.mean(-1, keepdims=True)) / (x.var(-1, ddof=1, keepdims=True) + 1e-6) ** 0.5
    found = standardize_patches(wave_patches[:2, :5])
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("anchor_ratio", "anchors"), [(0.03, 6), (0.05, 10), (0.5, 98)])
def test_an_anchor_ratio_gives_the_number_of_anchors_of_the_released_code(
    anchor_ratio: float, anchors: int
) -> None:
    assert ClusterMask(anchor_ratio=anchor_ratio, target_mask_ratio=0.7).num_anchors(196) == anchors


def test_a_grid_of_few_patches_still_has_an_anchor() -> None:
    assert [ClusterMask(anchor_ratio=0.001).num_anchors(n) for n in (1, 4, 16)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("ratio", "visible"), [(0.3, 137), (0.5, 98), (0.6, 78), (0.75, 49), (0.9, 19), (0.0, 196)]
)
def test_a_mask_ratio_leaves_as_many_patches_as_in_the_released_codes(ratio: float, visible: int) -> None:
    assert RandomMask(mask_ratio=ratio).num_visible(196) == visible
    assert ClusterMask(min_mask_ratio=ratio).num_visible(196) == visible


def test_a_mask_that_is_not_calibrated_says_so(wave_patches: Tensor) -> None:
    with pytest.raises(ValueError, match="calibrate"):
        ClusterMask()(MaskInputs.of(wave_patches), generator=Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"anchor_ratio": 0.0}, "anchor_ratio"),
        ({"anchor_ratio": 1.0}, "anchor_ratio"),
        ({"min_mask_ratio": 1.0}, "min_mask_ratio"),
        ({"min_mask_ratio": -0.1}, "min_mask_ratio"),
        ({"target_mask_ratio": 0.02}, "target_mask_ratio"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_an_impossible_setting_is_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ClusterMask(**settings)  # pyright: ignore[reportArgumentType]


def test_a_mix_with_another_feature_hides_as_many_patches_as_in_the_specification(
    wave_patches: Tensor,
) -> None:
    """Plain pixels stand in for the embeddings; alpha 0.25 (G3b)."""
    similarity = nearest(wave_patches, ANCHORS, tokens=wave_patches, alpha=0.25)
    assert (similarity > 0.5).sum(dim=1).tolist() == [167, 164, 154, 116]
    lone = nearest(wave_patches, torch.zeros(4, 1, dtype=torch.int64), tokens=wave_patches, alpha=0.25)
    assert lone[0, 100].item() == pytest.approx(-0.30336575, abs=1e-5)
    raw = nearest(wave_patches, ANCHORS, tokens=wave_patches, alpha=1.0)
    assert (raw > 0.5).sum(dim=1).tolist() == [158, 146, 131, 134]


@pytest.mark.parametrize(
    ("power", "alphas"),
    [
        (1.0, [0, 0.03125, 0.25, 0.5, 0.96875]),
        (1 / 3, [0, 0.31498, 0.629961, 0.793701, 0.989473]),
        (2.0, [0, 0.000977, 0.0625, 0.25, 0.938477]),
    ],
)
def test_alpha_starts_with_pixels_and_moves_to_embeddings(power: float, alphas: list[float]) -> None:
    mask = ClusterMask(feature="mix", alpha_power=power)
    assert [mask.alpha(epoch / 32) for epoch in (0, 1, 8, 16, 31)] == pytest.approx(alphas, abs=1e-6)


def test_pixels_and_embeddings_alone_ask_for_nothing_else(wave_patches: Tensor) -> None:
    def unwanted() -> Tensor:
        raise AssertionError("a view was computed that nobody compares")

    size, device = (4, 196), wave_patches.device
    pixels = MaskInputs(size, device, patches=lambda: wave_patches, tokens=unwanted)
    tokens = MaskInputs(size, device, patches=unwanted, tokens=lambda: wave_patches)
    for feature, inputs in (("rgb", pixels), ("embedding", tokens), ("mix", pixels)):
        mask = ClusterMask(feature=feature, threshold=0.5)  # pyright: ignore[reportArgumentType]
        masked = mask(inputs, generator=Generator().manual_seed(0))
        both = MaskInputs(size, device, patches=lambda: wave_patches, tokens=lambda: wave_patches)
        assert torch.equal(masked, mask(both, generator=Generator().manual_seed(0)))


def test_with_a_threshold_per_image_every_image_meets_the_target(wave_patches: Tensor) -> None:
    mask = ClusterMask(threshold="per_image", target_mask_ratio=0.4, min_mask_ratio=0.4)
    inputs = MaskInputs.of(wave_patches)
    masked = mask(inputs, generator=Generator().manual_seed(0))
    assert mask.is_exact
    assert (~masked).sum(dim=1).tolist() == [mask.num_visible(196)] * 4 == [117] * 4
    anchors = mask.draw_anchors(uniform_noise(inputs, Generator().manual_seed(0)))
    similarity = nearest(wave_patches, anchors)
    for row in range(4):
        assert similarity[row][masked[row]].min() >= similarity[row][~masked[row]].max()
        assert masked[row, anchors[row]].all()


def test_a_table_of_thresholds_is_read_between_its_entries() -> None:
    mask = ClusterMask(threshold=((0.2, 0.4), (0.6, 0.8)))
    assert [mask.threshold_at(p) for p in (0.0, 0.2, 0.3, 0.6, 0.9)] == pytest.approx(
        [0.4, 0.4, 0.5, 0.8, 0.8]
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"alpha_power": 0.0}, "alpha_power"),
        ({"threshold": ((0.5, 0.1), (0.2, 0.3))}, "threshold"),
        ({"threshold": ()}, "threshold"),
        ({"threshold": ((0.0, 2.0),)}, "threshold"),
        ({"measure": "floored", "target_mask_ratio": 0.5, "min_mask_ratio": 0.5}, "measure is floored"),
    ],
)
def test_an_impossible_table_or_schedule_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ClusterMask(**settings)


def test_few_patches_still_show_one() -> None:
    for mask in (RandomMask(mask_ratio=0.9), ClusterMask(min_mask_ratio=0.9)):
        assert [mask.num_visible(n) for n in (1, 2, 3, 10)] == [1, 1, 1, 1]


def test_a_cosine_alpha_begins_and_ends_as_the_linear_one_and_is_slower_at_both_ends() -> None:
    linear, cosine = (ClusterMask(feature="mix", alpha_shape=shape) for shape in ("linear", "cosine"))
    for progress in (0.0, 0.5, 1.0):
        assert cosine.alpha(progress) == pytest.approx(linear.alpha(progress))
    assert cosine.alpha(0.1) < linear.alpha(0.1)
    assert cosine.alpha(0.9) > linear.alpha(0.9)
