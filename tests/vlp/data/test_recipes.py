"""RandAugment and random erasing are timm's, and a function of the sample's seed alone."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor

from vlp.data.augmentation import Augmentation, draw_augmentation
from vlp.data.config import DataConfig
from vlp.data.recipes import erased, rand_augmented
from vlp.data.transforms import to_tensor

RECIPE = "rand-m9-mstd0.5-inc1"
ALL = DataConfig(rand_augment=RECIPE, erasing_prob=0.25)


@pytest.fixture
def image() -> Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return to_tensor(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def test_rand_augment_is_timms_by_equal_draws(image: Tensor) -> None:
    """Configured as timm's `create_transform` does it for images of 64 pixels."""
    hparams = {"translate_const": 28, "img_mean": (124, 116, 104), "interpolation": 3}
    transform = rand_augment_transform(RECIPE, hparams)
    changed = 0
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)
        expected = to_tensor(transform(Image.fromarray(image.permute(1, 2, 0).numpy())))
        found = rand_augmented(image, RECIPE, seed=seed, normalization="imagenet")
        assert torch.equal(found, expected)
        changed += not torch.equal(found, image)
    assert changed > 10


def test_a_seed_gives_one_image_whatever_else_is_drawn_and_disturbs_nothing_else(image: Tensor) -> None:
    views = []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        view = rand_augmented(image, RECIPE, seed=5, normalization="imagenet")
        views.append(erased(view, seed=6, normalization="imagenet"))
        after = random.random(), np.random.rand(), torch.rand(()).item()
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        assert after == (random.random(), np.random.rand(), torch.rand(()).item())
    assert torch.equal(*views)


def test_a_box_is_filled_with_noise_of_the_data_sets_colours(image: Tensor) -> None:
    gray, shares, noise = torch.full_like(image, 7), [], []
    for seed in range(200):
        found = erased(gray, seed=seed, normalization="imagenet")
        is_erased = (found != 7).any(dim=0)
        rows, columns = is_erased.any(dim=1).nonzero()[:, 0], is_erased.any(dim=0).nonzero()[:, 0]
        box = found[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
        assert (found[:, ~is_erased] == 7).all()
        shares.append(box[0].numel() / 64**2)
        noise.append(box.flatten(1))
    assert min(shares) >= 0.015
    assert max(shares) <= 0.34
    assert np.mean(shares) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.03)
    mean, std = torch.cat(noise, dim=1).mean(dim=1), torch.cat(noise, dim=1).std(dim=1)
    assert mean.tolist() == pytest.approx([255 * x for x in (0.485, 0.456, 0.406)], abs=4)
    assert std.tolist() == pytest.approx([255 * x for x in (0.229, 0.224, 0.225)], rel=0.06)


def test_they_are_drawn_beside_what_was_drawn_before() -> None:
    def draws(config: DataConfig) -> list[Augmentation]:
        rngs = (np.random.default_rng(seed) for seed in range(400))
        return [draw_augmentation((120, 90), config, rng) for rng in rngs]

    for plain, one in zip(draws(DataConfig()), draws(ALL), strict=True):
        assert one._replace(rand_augment_seed=None, erasing_seed=None) == plain
    found = draws(ALL)
    assert len({one.rand_augment_seed for one in found}) == 400
    share = np.mean([one.erasing_seed is not None for one in found])
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


@pytest.mark.parametrize("recipe", ["augmix", "rand-m9-x3", "rand-mx"])
def test_a_recipe_that_timm_does_not_know_is_named(recipe: str) -> None:
    with pytest.raises(ValueError, match=f"rand_augment: timm has no RandAugment '{recipe}'"):
        replace(ALL, rand_augment=recipe)
